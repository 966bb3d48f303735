// An open artifact: starts and targets in, the iterations, finalisation, a measured result out.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "finalize.hpp"
#include "json.hpp"
#include "streams.hpp"

namespace jataug {

/// Flow and perturbation; empty for a branch that is off.
struct State {
  Floats flow, delta;
};

/// What one call of the artifact gives: the outgoing state, and loss and logits of the incoming one.
struct Step {
  State state;
  Floats adversarial, loss, logits;
};

struct Options {
  uint64_t seed = 0, epoch = 0;
  std::vector<uint64_t> indices;             // which sample each image is
  std::optional<Floats> flow, pixel;         // radii, one per image
  std::optional<int64_t> steps;              // only the form "step" takes another number than its own
  std::function<void(int64_t, const Step&)> on_step;
};

struct Result {
  Levels levels;
  State start, kept;  // kept: what was finalised
  Final end;
  Floats delta, loss, logits;
  std::vector<int64_t> labels, targets, predictions;
  std::vector<bool> success, failed;
};

class Attack {
 public:
  Attack(const std::string& path, int threads);

  /// (n, height, width, channel) 8-bit images in and out; labels are the model's own predictions.
  Result attack(const Levels& levels, const Options& options);

  Shape shape(int64_t n) const { return {n, channel_, height_, width_}; }
  const std::string& form() const { return form_; }
  /// Images that one call takes; 0 where it takes any number.
  int64_t batch() const { return batch_; }

 private:
  struct Task;

  State start(const Task& task) const;
  State iterate(Task& task);
  Step run(const Task& task, const State& state, bool measure_only = false);
  Step measure(const Floats& image, const std::vector<int64_t>& labels,
               const std::vector<int64_t>& targets);
  void draw_targets(Task& task, size_t iteration) const;
  Floats radii(const std::optional<Floats>& given, int64_t n, const std::string& branch) const;
  bool has(const std::string& branch) const { return config_[branch]["radius"].number() > 0; }
  bool linf(const std::string& branch) const { return config_[branch]["norm"].text() == "linf"; }
  void read_manifest();
  std::vector<int64_t> predictions(const Floats& logits) const;

  Ort::Env env_;
  Ort::Session session_{nullptr};
  std::vector<std::string> inputs_, outputs_;
  Json config_;
  std::string form_;
  int64_t channel_ = 0, height_ = 0, width_ = 0, classes_ = 0, iterations_ = 1, batch_ = 0;
  double max_flow_ = 0;
};

}  // namespace jataug

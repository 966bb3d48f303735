#include "attack.hpp"

#include <fstream>
#include <limits>
#include <numeric>
#include <stdexcept>

namespace jataug {

namespace {

constexpr int64_t format_version = 1;

std::string one_line(std::string text) {
  for (char& c : text) c = c == '\n' ? ' ' : c;
  return text;
}

bool finite(const float* values, int64_t count) {
  return std::all_of(values, values + count, [](float v) { return std::isfinite(v); });
}

float cross_entropy(const float* logits, size_t classes, int64_t label) {
  const float most = *std::max_element(logits, logits + classes);
  float sum = 0;
  for (size_t k = 0; k < classes; ++k) sum += std::exp(logits[k] - most);
  return std::log(sum) + most - logits[label];
}

/// The best iterate of each image so far: misclassified first, then the highest loss; ties stay.
/// Losses of targets that are drawn anew cannot be compared: then the label's cross entropy ranks.
struct Best {
  bool redrawn;
  State state;
  std::vector<std::pair<bool, float>> rank;

  void consider(const State& now, const Step& at, const std::vector<int64_t>& labels,
                const std::vector<int64_t>& predicted) {
    const size_t n = labels.size(), classes = at.logits.size() / n;
    const bool first = rank.empty();
    if (first) state = now, rank.resize(n);
    for (size_t row = 0; row < n; ++row) {
      const bool sound = std::isfinite(at.loss[row]) && finite(&at.logits[row * classes], classes);
      const float value = redrawn ? cross_entropy(&at.logits[row * classes], classes, labels[row])
                                  : at.loss[row];
      const std::pair<bool, float> found{
          sound && predicted[row] != labels[row],
          sound ? value : -std::numeric_limits<float>::infinity()};
      if (!first && found <= rank[row]) continue;
      rank[row] = found;
      copy_row(now.flow, state.flow, row, n);
      copy_row(now.delta, state.delta, row, n);
    }
  }

  static void copy_row(const Floats& from, Floats& to, size_t row, size_t n) {
    const size_t size = from.size() / n;
    std::copy_n(from.begin() + row * size, size, to.begin() + row * size);
  }
};

}  // namespace

struct Attack::Task {
  const Options& options;
  Shape shape;
  Floats image;
  std::vector<int64_t> labels, targets;
  Floats flow_radius, pixel_radius, flow_step, pixel_step;
  int64_t steps = 0;
};

Attack::Attack(const std::string& path, int threads) {
  if (!std::ifstream(path)) throw std::runtime_error(path + ": expected an attack artifact, found no file");
  Ort::SessionOptions options;
  options.SetLogSeverityLevel(ORT_LOGGING_LEVEL_FATAL);
  if (threads) options.SetIntraOpNumThreads(threads);
  try {
    session_ = Ort::Session(env_, path.c_str(), options);
  } catch (const Ort::Exception& error) {
    throw std::runtime_error(path + ": this runtime refuses the artifact: " + one_line(error.what()) +
                             "; take a newer runtime, or another form: jataug export --form");
  }
  Ort::AllocatorWithDefaultOptions allocator;
  for (size_t i = 0; i < session_.GetInputCount(); ++i)
    inputs_.push_back(session_.GetInputNameAllocated(i, allocator).get());
  for (size_t i = 0; i < session_.GetOutputCount(); ++i)
    outputs_.push_back(session_.GetOutputNameAllocated(i, allocator).get());
  try {
    read_manifest();
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(path + ": " + error.what());
  }
}

void Attack::read_manifest() {
  Ort::AllocatorWithDefaultOptions allocator;
  const auto text = session_.GetModelMetadata().LookupCustomMetadataMapAllocated("jataug", allocator);
  if (!text) {
    throw std::runtime_error("expected an attack artifact, found no manifest; make one with jataug export");
  }
  const Json manifest = Json::parse(text.get());
  if (manifest["format_version"].integer() > format_version) {
    throw std::runtime_error("the artifact's format_version is newer than this driver reads");
  }
  const std::vector<int64_t> image = manifest["image_shape"].numbers<int64_t>();
  if (image.size() != 3) throw std::runtime_error("manifest: image_shape has not three numbers");
  channel_ = image[0], height_ = image[1], width_ = image[2];
  config_ = manifest["config"];
  form_ = manifest["form"].text();
  classes_ = manifest["classes"].integer();
  iterations_ = std::max<int64_t>(1, manifest["iterations"].integer());
  max_flow_ = manifest["max_flow_radius"].number();
  batch_ = manifest["batch"].is_number() ? manifest["batch"].integer() : 0;
}

Result Attack::attack(const Levels& levels, const Options& options) {
  const int64_t n = static_cast<int64_t>(options.indices.size());
  Task task{options, shape(n), from_levels(levels, shape(n)), {}, {}, {}, {}, {}, {}};
  task.steps = options.steps.value_or(config_["steps"].integer());
  if (form_ != "step" && task.steps && task.steps != config_["steps"].integer()) {
    throw std::runtime_error("steps: the form " + form_ + " has its own number built in");
  }
  task.flow_radius = radii(options.flow, n, "flow");
  task.pixel_radius = radii(options.pixel, n, "pixel");
  const double share = task.steps ? std::min(1.0, 2.5 / static_cast<double>(task.steps)) : 1.0;
  const auto sizes = [&](const Floats& radius, const Json& given) {
    Floats out(radius);
    for (float& r : out) r = given.is_null() ? r * share : given.number();
    return out;
  };
  task.flow_step = sizes(task.flow_radius, config_["flow_step"]);
  task.pixel_step = sizes(task.pixel_radius, config_["pixel_step"]);
  const std::vector<int64_t> none(n);
  const Floats clean = measure(task.image, none, none).logits;
  task.labels = predictions(clean);
  draw_targets(task, 0);

  Result result;
  result.start = start(task);
  result.kept = task.steps ? iterate(task) : result.start;
  const bool pixel_spatial = config_["composition"].text() == "pixel-spatial";
  result.end = finalize(task.image, result.kept.flow, result.kept.delta, task.pixel_radius,
                        linf("pixel"), pixel_spatial, task.shape);
  result.levels = quantize(result.end.adversarial, result.end.warped, task.pixel_radius, task.shape);
  Step measured = measure(from_levels(result.levels, task.shape), task.labels, task.targets);
  const int64_t size = task.shape.image();
  for (int64_t row = 0; row < n; ++row) {
    result.failed.push_back(!finite(&measured.logits[row * classes_], classes_) ||
                            !finite(&clean[row * classes_], classes_));
    if (!result.failed[row]) continue;
    // Images whose logits are not finite are kept clean.
    std::copy_n(levels.begin() + row * size, size, result.levels.begin() + row * size);
    std::copy_n(task.image.begin() + row * size, size, result.end.warped.begin() + row * size);
    std::fill_n(result.end.delta.begin() + row * size, size, 0.0f);
    if (!result.end.flow.empty()) {
      const int64_t vectors = 2 * task.shape.plane();
      std::fill_n(result.end.flow.begin() + row * vectors, vectors, 0.0f);
    }
  }
  const Floats stored = from_levels(result.levels, task.shape);
  measured = measure(stored, task.labels, task.targets);
  result.delta = has("pixel") && pixel_spatial ? result.end.delta : difference(stored, result.end.warped);
  result.loss = measured.loss;
  result.logits = measured.logits;
  result.labels = task.labels;
  result.targets = task.targets;
  result.predictions = predictions(measured.logits);
  for (int64_t row = 0; row < n; ++row)
    result.success.push_back(!result.failed[row] && result.predictions[row] != task.labels[row]);
  return result;
}

State Attack::start(const Task& task) const {
  const Shape& s = task.shape;
  State state;
  const bool random = config_["start"].text() == "random";
  if (has("flow")) state.flow.resize(2 * s.n * s.plane());
  if (has("pixel")) state.delta.resize(task.image.size());
  if (!random) return state;
  for (int64_t row = 0; row < s.n; ++row) {
    const Stream stream{task.options.seed, task.options.indices[row], task.options.epoch};
    if (has("flow")) {
      const Floats drawn = flow_start(stream, s.plane(), task.flow_radius[row], linf("flow"));
      std::copy(drawn.begin(), drawn.end(), state.flow.begin() + 2 * row * s.plane());
    }
    if (has("pixel")) {
      const Floats drawn = pixel_start(stream, s.image(), task.pixel_radius[row], linf("pixel"));
      std::copy(drawn.begin(), drawn.end(), state.delta.begin() + row * s.image());
    }
  }
  if (has("flow")) project_flow(state.flow, task.flow_radius, linf("flow"), s);
  if (!has("pixel")) return state;
  project_delta(state.delta, task.pixel_radius, linf("pixel"), s);
  const bool warped = has("flow") && config_["composition"].text() == "spatial-pixel";
  const Floats base = warped ? warp(task.image, state.flow, s) : task.image;
  state.delta = difference(clipped_sum(base, state.delta), base);
  return state;
}

State Attack::iterate(Task& task) {
  const bool keeps_best = config_["keep"].text() == "best" && form_ == "step";
  State state = start(task);
  Best best{config_["redraw_targets"].boolean(), {}, {}};
  const int64_t calls = std::max<int64_t>(1, task.steps / iterations_);
  for (int64_t number = 0; number < calls; ++number) {
    if (number && config_["redraw_targets"].boolean()) draw_targets(task, number);
    Step step = run(task, state);
    if (keeps_best) best.consider(state, step, task.labels, predictions(step.logits));
    state = step.state;
    if (task.options.on_step) task.options.on_step(number, step);
  }
  if (!keeps_best) return state;
  // The last state has not been measured yet: one more call reads its loss and logits.
  const Step last = run(task, state, true);
  best.consider(state, last, task.labels, predictions(last.logits));
  return best.state;
}

Step Attack::measure(const Floats& image, const std::vector<int64_t>& labels,
                     const std::vector<int64_t>& targets) {
  static const Options none;
  const Shape s = shape(static_cast<int64_t>(labels.size()));
  const Floats zero(s.n);
  const Task task{none, s, image, labels, targets, zero, zero, zero, zero};
  return run(task, {Floats(2 * s.n * s.plane()), Floats(image.size())}, true);
}

Step Attack::run(const Task& task, const State& state, bool measure_only) {
  const int64_t n = task.shape.n, batch = batch_ ? batch_ : n;
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  std::map<std::string, Floats> floats{
      {"image", task.image},          {"flow", state.flow},
      {"delta", state.delta},         {"flow_radius", task.flow_radius},
      {"pixel_radius", task.pixel_radius}, {"flow_step", task.flow_step},
      {"pixel_step", task.pixel_step}};
  std::map<std::string, std::vector<int64_t>> integers{{"label", task.labels}, {"target", task.targets}};
  std::vector<Ort::Value> values;
  std::vector<const char*> inputs, outputs;
  std::vector<std::vector<int64_t>> shapes;
  shapes.reserve(inputs_.size());
  for (const std::string& name : inputs_) {
    inputs.push_back(name.c_str());
    if (const auto found = integers.find(name); found != integers.end()) {
      std::vector<int64_t>& data = found->second;
      data.resize(batch, name == "target");  // a target differs from the label, in the padding too
      shapes.push_back({batch});
      values.push_back(Ort::Value::CreateTensor<int64_t>(memory, data.data(), data.size(),
                                                         shapes.back().data(), 1));
      continue;
    }
    if (!floats.count(name)) throw std::runtime_error("the artifact has an unknown input " + name);
    Floats& data = floats[name];
    const int64_t per_image = static_cast<int64_t>(data.size()) / n;
    data.resize(batch * per_image);
    shapes.push_back(per_image == 1 && name.find('_') != std::string::npos
                         ? std::vector<int64_t>{batch}
                         : std::vector<int64_t>{batch, per_image / (height_ * width_), height_, width_});
    values.push_back(Ort::Value::CreateTensor<float>(memory, data.data(), data.size(),
                                                     shapes.back().data(), shapes.back().size()));
  }
  for (const std::string& name : outputs_)
    if (!measure_only || name == "loss" || name == "logits") outputs.push_back(name.c_str());
  const auto results = session_.Run(Ort::RunOptions{}, inputs.data(), values.data(), values.size(),
                                    outputs.data(), outputs.size());
  Step step;
  const std::map<std::string, Floats*> places{{"next_flow", &step.state.flow},
                                              {"next_delta", &step.state.delta},
                                              {"adversarial", &step.adversarial},
                                              {"loss", &step.loss},
                                              {"logits", &step.logits}};
  for (size_t i = 0; i < results.size(); ++i) {
    const auto place = places.find(outputs[i]);
    if (place == places.end()) continue;
    const size_t count = results[i].GetTensorTypeAndShapeInfo().GetElementCount() / batch * n;
    const float* data = results[i].GetTensorData<float>();
    place->second->assign(data, data + count);
  }
  return step;
}

void Attack::draw_targets(Task& task, size_t iteration) const {
  task.targets.resize(task.labels.size());
  for (size_t row = 0; row < task.labels.size(); ++row) {
    const Stream stream{task.options.seed, task.options.indices[row], task.options.epoch};
    task.targets[row] = target_label(stream, task.labels[row], classes_, iteration);
  }
}

Floats Attack::radii(const std::optional<Floats>& given, int64_t n, const std::string& branch) const {
  const float preset = static_cast<float>(config_[branch]["radius"].number());
  const Floats radius = given.value_or(Floats(n, preset));
  for (float r : radius) {
    if (!has(branch) && r > 0)
      throw std::runtime_error(branch + " radius: the artifact was exported without this branch");
    if (branch == "flow" && r > static_cast<float>(max_flow_))
      throw std::runtime_error("flow radius: the artifact serves at most " + std::to_string(max_flow_) +
                               " pixels");
  }
  return radius;
}

std::vector<int64_t> Attack::predictions(const Floats& logits) const {
  std::vector<int64_t> best;
  for (auto row = logits.begin(); row != logits.end(); row += classes_)
    best.push_back(std::max_element(row, row + classes_) - row);
  return best;
}

}  // namespace jataug

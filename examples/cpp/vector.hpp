// The published test vector: what this driver makes of it, against what it should be.
#pragma once

#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "attack.hpp"

namespace jataug {

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": no such file");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

class Vector {
 public:
  explicit Vector(const std::string& folder)
      : folder_(folder + "/"), vector_(Json::parse(read_file(folder_ + "vector.json"))),
        raw_(read_file(folder_ + vector_["data"].text())) {}

  /// Run every case and form; print the differences; return whether all agree.
  bool check() {
    for (const Json& item : vector_["cases"].array())
      for (const auto& [form, file] : item["artifacts"].object()) check_case(item, form, file.text());
    std::cout << agreed_ << " of " << compared_ << " agree\n";
    return compared_ && agreed_ == compared_;
  }

 private:
  std::string folder_;
  Json vector_;
  std::string raw_;
  int agreed_ = 0, compared_ = 0;

  void check_case(const Json& item, const std::string& form, const std::string& file) {
    Attack attack(folder_ + file, 1);
    Options options;
    options.seed = std::stoull(item["seed"].text());
    options.epoch = static_cast<uint64_t>(item["epoch"].integer());
    options.indices = item["indices"].numbers<uint64_t>();
    options.flow = item["flow_radius"].numbers<float>();
    options.pixel = item["pixel_radius"].numbers<float>();
    Step first, last;
    options.on_step = [&](int64_t number, const Step& step) { (number ? last : first) = step; };
    const std::string levels = bytes(item, "levels");
    const Result result = attack.attack(Levels(levels.begin(), levels.end()), options);
    const std::string where = item["name"].text() + " " + form + " ";
    const auto compare = [&](const char* name, const Floats& values, double limit) {
      report(where + name, largest(values, floats(item, name)), limit);
    };
    const double limit = vector_["tolerance"].number();
    report(where + "labels", result.labels != item["labels"].numbers<int64_t>(), 0);
    report(where + "last_targets", result.targets != item["last_targets"].numbers<int64_t>(), 0);
    for (size_t row = 0; row < result.success.size(); ++row)
      report(where + "success", result.success[row] != item["success"].array()[row].boolean(), 0);
    compare("start_flow", result.start.flow, 1e-6);
    compare("start_delta", result.start.delta, 1e-6);
    compare("start_loss", first.loss, limit);
    compare("start_logits", first.logits, limit);
    if (form == "step") {
      compare("first_flow", first.state.flow, limit);
      compare("first_delta", first.state.delta, limit);
      compare("first_adversarial", first.adversarial, limit);
      compare("last_flow", last.state.flow, limit);
      compare("last_delta", last.state.delta, limit);
    }
    compare("kept_flow", result.kept.flow, limit);
    compare("kept_delta", result.kept.delta, limit);
    const std::string wanted = bytes(item, "final_levels");
    report(where + "final_levels", Levels(wanted.begin(), wanted.end()) != result.levels, 0);
    compare("final_flow", result.end.flow, limit);
    compare("final_delta", result.delta, limit);
    compare("final_loss", result.loss, limit);
    compare("final_logits", result.logits, limit);
  }

  void report(const std::string& what, double difference, double limit) {
    const bool agrees = difference <= limit;
    agreed_ += agrees;
    ++compared_;
    std::cout << what << " " << difference << (agrees ? " ok\n" : " WRONG\n");
  }

  std::string bytes(const Json& item, const std::string& name) const {
    const Json& tensor = item["tensors"][name];
    size_t size = tensor["dtype"].text() == "float32" ? 4 : 1;
    for (const Json& extent : tensor["shape"].array()) size *= extent.integer();
    return raw_.substr(tensor["offset"].integer(), size);
  }

  /// The file is little-endian, as is every machine this is built for.
  Floats floats(const Json& item, const std::string& name) const {
    const std::string stored = bytes(item, name);
    Floats values(stored.size() / 4);
    std::memcpy(values.data(), stored.data(), stored.size());
    return values;
  }

  static double largest(const Floats& values, const Floats& expected) {
    if (values.size() != expected.size()) return HUGE_VAL;
    double most = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      const double difference = std::fabs(static_cast<double>(values[i]) - expected[i]);
      if (!(difference <= most)) most = std::isnan(difference) ? HUGE_VAL : difference;
    }
    return most;
  }
};

}  // namespace jataug

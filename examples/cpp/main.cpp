// attack: the joint attack on a folder of PGM or PPM images, from an exported artifact.

#include <charconv>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "attack.hpp"
#include "images.hpp"
#include "vector.hpp"

namespace fs = std::filesystem;
using namespace jataug;

namespace {

constexpr const char* usage =
    "attack ATTACK.onnx IN OUT [options]   attack the .pgm and .ppm images in IN, write them to OUT\n"
    "attack --check FOLDER                 reproduce the test vector (examples/vector)\n"
    "\n"
    "  --flow PIXELS    radius of the flow; at most what the artifact was exported for\n"
    "  --pixel RADIUS   radius of the perturbation: a number, or a fraction such as 8/255\n"
    "  --steps COUNT    iterations; only the form \"step\" takes another number than its own\n"
    "  --seed SEED      of the random starts and targets (default 0)\n"
    "  --batch SIZE     images at a time (default 16)\n"
    "  --threads COUNT  of the runtime (default: its own choice)\n";

struct Arguments {
  std::vector<std::string> positional;
  std::optional<float> flow, pixel;
  std::optional<int64_t> steps;
  uint64_t seed = 0;
  int64_t batch = 16;
  int threads = 0;
};

double number(const std::string& text, const std::string& name) {
  const size_t slash = text.find('/');
  const auto part = [&](const std::string& digits) {
    double value = -1;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc{} || end != digits.data() + digits.size() || !(value >= 0) || std::isinf(value))
      throw std::runtime_error(name + ": expected a number >= 0, got " + text);
    return value;
  };
  if (slash == std::string::npos) return part(text);
  const double under = part(text.substr(slash + 1));
  if (under == 0) throw std::runtime_error(name + ": expected a number >= 0, got " + text);
  return part(text.substr(0, slash)) / under;
}

template <class T>
T whole(const std::string& text, const std::string& name, T least) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < least)
    throw std::runtime_error(name + ": expected an integer >= " + std::to_string(least) + ", got " + text);
  return value;
}

Arguments parse(const std::vector<std::string>& words) {
  Arguments given;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word.rfind("--", 0) != 0) {
      given.positional.push_back(word);
      continue;
    }
    if (i + 1 == words.size()) throw std::runtime_error(word + ": expected a value");
    const std::string& value = words[++i];
    if (word == "--flow") given.flow = static_cast<float>(number(value, word));
    else if (word == "--pixel") given.pixel = static_cast<float>(number(value, word));
    else if (word == "--steps") given.steps = whole<int64_t>(value, word, 0);
    else if (word == "--seed") given.seed = whole<uint64_t>(value, word, 0);
    else if (word == "--batch") given.batch = whole<int64_t>(value, word, 1);
    else if (word == "--threads") given.threads = whole<int>(value, word, 1);
    else throw std::runtime_error(word + ": unknown option");
  }
  if (given.positional.size() != 3) throw std::runtime_error(std::string("expected ATTACK.onnx IN OUT\n\n") + usage);
  return given;
}

/// Natural order: "2" before "10".
bool before(const fs::path& one, const fs::path& other) {
  const std::string a = one.filename().string(), b = other.filename().string();
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (!digit(a[i]) || !digit(b[j])) {
      if (a[i] != b[j]) return a[i] < b[j];
      ++i, ++j;
      continue;
    }
    const auto value = [&](const std::string& text, size_t& at) {
      while (at + 1 < text.size() && text[at] == '0' && digit(text[at + 1])) ++at;
      const size_t from = at;
      while (at < text.size() && digit(text[at])) ++at;
      return std::pair<size_t, std::string>{at - from, text.substr(from, at - from)};
    };
    const auto x = value(a, i), y = value(b, j);
    if (x != y) return x < y;
  }
  return a.size() - i < b.size() - j || (a.size() - i == b.size() - j && a < b);
}

/// The images in natural order; the rank of an image is its sample index.
std::vector<fs::path> listed(const fs::path& folder) {
  std::vector<fs::path> files;
  if (!fs::is_directory(folder)) throw std::runtime_error(folder.string() + ": expected a folder, found none");
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".pgm" || entry.path().extension() == ".ppm") files.push_back(entry.path());
  if (files.empty()) throw std::runtime_error(folder.string() + ": expected .pgm or .ppm images, found none");
  std::sort(files.begin(), files.end(), before);
  return files;
}

int attack_folder(const Arguments& given) {
  Attack attack(given.positional[0], given.threads);
  const std::vector<fs::path> files = listed(given.positional[1]);
  const fs::path destination = given.positional[2];
  const bool there = fs::exists(destination);
  if (there && !(fs::is_directory(destination) && fs::is_empty(destination)))
    throw std::runtime_error(destination.string() + ": expected a new or empty folder");
  read_image(files[0].string(), attack.shape(1).channel, attack.shape(1).height, attack.shape(1).width);
  fs::create_directories(destination);
  std::ostringstream report;
  report << "image,index,label,target,prediction,loss,success,failed\n";
  const size_t batch = static_cast<size_t>(attack.batch() ? attack.batch() : given.batch);
  int64_t fooled = 0;
  for (size_t first = 0; first < files.size(); first += batch) {
    const size_t count = std::min(batch, files.size() - first);
    const Shape s = attack.shape(static_cast<int64_t>(count));
    Levels levels;
    Options options;
    options.seed = given.seed;
    options.steps = given.steps;
    if (given.flow) options.flow = Floats(count, *given.flow);
    if (given.pixel) options.pixel = Floats(count, *given.pixel);
    for (size_t row = 0; row < count; ++row) {
      const Levels image = read_image(files[first + row].string(), s.channel, s.height, s.width);
      levels.insert(levels.end(), image.begin(), image.end());
      options.indices.push_back(first + row);
    }
    const Result result = attack.attack(levels, options);
    for (size_t row = 0; row < count; ++row) {
      const fs::path name = files[first + row].filename();
      write_image((destination / name).replace_extension(s.channel == 1 ? ".pgm" : ".ppm").string(),
                  &result.levels[row * s.image()], s.channel, s.height, s.width);
      report << name.string() << ',' << first + row << ',' << result.labels[row] << ','
             << result.targets[row] << ',' << result.predictions[row] << ',' << result.loss[row] << ','
             << result.success[row] << ',' << result.failed[row] << '\n';
      fooled += result.success[row];
    }
  }
  std::ofstream table(destination / "results.csv");
  if (!(table << report.str()).flush()) throw std::runtime_error((destination / "results.csv").string() + ": cannot be written");
  std::cout << destination.string() << ": " << files.size() << " images, " << fooled << " change their label\n";
  return 0;
}

}  // namespace

int main(int count, char** words) {
  const std::vector<std::string> arguments(words + 1, words + count);
  try {
    if (arguments.size() == 2 && arguments[0] == "--check") return Vector(arguments[1]).check() ? 0 : 1;
    if (arguments.size() == 1 && (arguments[0] == "--help" || arguments[0] == "-h")) {
      std::cout << usage;
      return 0;
    }
    return attack_folder(parse(arguments));
  } catch (const std::exception& error) {
    std::cerr << "attack: " << error.what() << "\n";
    return 2;
  }
}

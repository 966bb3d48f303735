// Random starts and targets from Philox4x64-10, as docs/streams.md specifies them.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

namespace jataug {

constexpr double pi = 3.141592653589793;

enum Tensor : uint64_t { flow_tensor = 1, pixel_tensor = 2, target_tensor = 3 };

struct Stream {
  uint64_t seed = 0, index = 0, epoch = 0;
};

/// Two 64-bit halves of a product of two 64-bit words.
struct Product {
  uint64_t high, low;
};

inline Product multiply(uint64_t a, uint64_t b) {
  const uint64_t a0 = static_cast<uint32_t>(a), a1 = a >> 32;
  const uint64_t b0 = static_cast<uint32_t>(b), b1 = b >> 32;
  const uint64_t middle = a1 * b0 + ((a0 * b0) >> 32);
  const uint64_t other = a0 * b1 + static_cast<uint32_t>(middle);
  return {a1 * b1 + (middle >> 32) + (other >> 32), a * b};
}

inline std::array<uint64_t, 4> block(std::array<uint64_t, 4> c, uint64_t k0, uint64_t k1) {
  for (int round = 0; round < 10; ++round) {
    const Product p0 = multiply(0xd2e7470ee14c6c93, c[0]), p1 = multiply(0xca5a826395121157, c[2]);
    c = {p1.high ^ c[1] ^ k0, p1.low, p0.high ^ c[3] ^ k1, p0.low};
    k0 += 0x9e3779b97f4a7c15;
    k1 += 0xbb67ae8584caa73b;
  }
  return c;
}

/// `count` numbers in [0, 1).
inline std::vector<double> uniform(const Stream& stream, Tensor tensor, size_t count) {
  std::vector<double> numbers;
  for (uint64_t number = 1; numbers.size() < count; ++number) {
    for (uint64_t word : block({number, tensor, 0, stream.epoch}, stream.seed, stream.index)) {
      numbers.push_back(std::ldexp(static_cast<double>(word >> 11), -53));
    }
  }
  numbers.resize(count);
  return numbers;
}

/// A flow field in its budget: the dx plane, then the dy plane, pixels.
inline std::vector<float> flow_start(const Stream& stream, size_t plane, double radius, bool linf) {
  const std::vector<double> u = uniform(stream, flow_tensor, 2 * plane);
  std::vector<float> flow(2 * plane);
  for (size_t p = 0; p < plane; ++p) {
    const double length = radius * std::sqrt(u[p]), angle = 2 * pi * u[plane + p];
    flow[p] = linf ? radius * (2 * u[p] - 1) : length * std::cos(angle);
    flow[plane + p] = linf ? radius * (2 * u[plane + p] - 1) : length * std::sin(angle);
  }
  return flow;
}

/// A perturbation of n entries in its budget, image units.
inline std::vector<float> pixel_start(const Stream& stream, size_t n, double radius, bool linf) {
  const std::vector<double> u = uniform(stream, pixel_tensor, linf ? n : 1 + 2 * n);
  std::vector<double> normal(n);
  double squares = 0;
  for (size_t i = 0; i < n && !linf; ++i) {
    normal[i] = std::sqrt(-2 * std::log1p(-u[1 + i])) * std::cos(2 * pi * u[1 + n + i]);
    squares += normal[i] * normal[i];
  }
  const double length = radius * std::pow(u[0], 1.0 / n), norm = std::sqrt(squares);
  std::vector<float> delta(n);
  for (size_t i = 0; i < n; ++i) {
    delta[i] = linf ? radius * (2 * u[i] - 1) : length * normal[i] / norm;
  }
  return delta;
}

/// A label other than `label`, uniform over the rest.
inline int64_t target_label(const Stream& stream, int64_t label, int64_t classes, size_t iteration) {
  const double u = uniform(stream, target_tensor, iteration + 1)[iteration];
  return (label + 1 + static_cast<int64_t>(u * static_cast<double>(classes - 1))) % classes;
}

}  // namespace jataug

// The warp, and what makes an 8-bit image of the last state: docs/drivers.md.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace jataug {

using Floats = std::vector<float>;
using Levels = std::vector<uint8_t>;

struct Shape {
  int64_t n = 0, channel = 0, height = 0, width = 0;
  int64_t plane() const { return height * width; }
  int64_t image() const { return channel * plane(); }
};

/// 8-bit pixels (n, height, width, channel) as (n, channel, height, width) in [0, 1].
inline Floats from_levels(const Levels& levels, const Shape& s) {
  Floats image(levels.size());
  for (int64_t row = 0; row < s.n; ++row)
    for (int64_t p = 0; p < s.plane(); ++p)
      for (int64_t c = 0; c < s.channel; ++c)
        // A division: multiplying by 1/255 gives another float for half of the levels.
        image[row * s.image() + c * s.plane() + p] =
            static_cast<float>(levels[row * s.image() + p * s.channel + c]) / 255.0f;
  return image;
}

/// T(x, w)(p) = x(p + w(p)), coordinates clamped to the image; zero flow is the identity.
inline Floats warp(const Floats& image, const Floats& flow, const Shape& s) {
  Floats out(image.size());
  const auto mix = [](float near, float far, float fraction) { return near + (far - near) * fraction; };
  for (int64_t row = 0; row < s.n; ++row) {
    const float* w = &flow[2 * row * s.plane()];
    for (int64_t p = 0; p < s.plane(); ++p) {
      // Floor and fraction come from w, not from p + w: adding p would cost the fraction its low bits.
      const float dx = w[p], dy = w[s.plane() + p];
      const int64_t x = p % s.width + static_cast<int64_t>(std::floor(dx));
      const int64_t y = p / s.width + static_cast<int64_t>(std::floor(dy));
      const auto column = [&](int64_t at) { return std::clamp<int64_t>(at, 0, s.width - 1); };
      const auto line = [&](int64_t at) { return std::clamp<int64_t>(at, 0, s.height - 1) * s.width; };
      const float across = dx - std::floor(dx), down = dy - std::floor(dy);
      for (int64_t c = 0; c < s.channel; ++c) {
        const float* x0 = &image[row * s.image() + c * s.plane()];
        const float upper = mix(x0[line(y) + column(x)], x0[line(y) + column(x + 1)], across);
        const float lower = mix(x0[line(y + 1) + column(x)], x0[line(y + 1) + column(x + 1)], across);
        out[row * s.image() + c * s.plane() + p] = mix(upper, lower, down);
      }
    }
  }
  return out;
}

/// A float truncated towards zero to a float16.
inline float to_half(float value) {
  const float size = std::fabs(value);
  if (!(size < 65504.0f)) return std::copysign(65504.0f, value);
  uint32_t bits;
  std::memcpy(&bits, &size, sizeof bits);
  const int exponent = std::max(static_cast<int>(bits >> 23) - 127, -14);
  return std::copysign(std::ldexp(std::floor(std::ldexp(size, 10 - exponent)), exponent - 10), value);
}

/// Project `count` entries, `stride` apart, onto the ball of `radius`.
inline void project(float* values, int64_t count, int64_t stride, float radius, bool linf) {
  float squares = 0;
  for (int64_t i = 0; i < count; ++i) squares += values[i * stride] * values[i * stride];
  const float length = std::sqrt(squares);
  const float inside = radius * (1 - std::ldexp(1.0f, -22)) / std::max(length, 1e-30f);
  for (int64_t i = 0; i < count; ++i) {
    float& value = values[i * stride];
    if (linf) value = std::clamp(value, -radius, radius);
    else if (length > radius) value *= inside;
  }
}

inline void project_flow(Floats& flow, const Floats& radius, bool linf, const Shape& s) {
  for (int64_t row = 0; row < s.n; ++row)
    for (int64_t p = 0; p < s.plane(); ++p)
      project(&flow[2 * row * s.plane() + p], 2, s.plane(), radius[row], linf);
}

inline void project_delta(Floats& delta, const Floats& radius, bool linf, const Shape& s) {
  for (int64_t row = 0; row < s.n; ++row)
    project(&delta[row * s.image()], s.image(), 1, radius[row], linf);
}

/// clip(base + delta, 0, 1)
inline Floats clipped_sum(const Floats& base, const Floats& delta) {
  Floats sum(base.size());
  for (size_t i = 0; i < sum.size(); ++i) sum[i] = std::clamp(base[i] + delta[i], 0.0f, 1.0f);
  return sum;
}

inline Floats difference(const Floats& one, const Floats& other) {
  Floats out(one.size());
  for (size_t i = 0; i < out.size(); ++i) out[i] = one[i] - other[i];
  return out;
}

struct Final {
  Floats adversarial, warped, flow, delta;
};

/// Truncate the flow to float16, render with it, project the perturbation, clip. An empty flow or
/// delta is a branch that is off.
inline Final finalize(const Floats& image, Floats flow, Floats delta, const Floats& radius, bool linf,
                      bool pixel_spatial, const Shape& s) {
  for (float& value : flow) value = std::isfinite(value) ? to_half(value) : 0;
  for (float& value : delta) value = std::isfinite(value) ? value : 0;
  const auto render = [&](const Floats& x) { return flow.empty() ? x : warp(x, flow, s); };
  const Floats warped = render(image);
  if (delta.empty()) return {warped, warped, flow, Floats(image.size())};
  project_delta(delta, radius, linf, s);
  const Floats perturbed = clipped_sum(pixel_spatial ? image : warped, delta);
  if (pixel_spatial) return {render(perturbed), warped, flow, difference(perturbed, image)};
  return {perturbed, warped, flow, difference(perturbed, warped)};
}

/// The 8-bit levels nearest `adversarial` within the radius of `warped`; the one nearest `warped`
/// where there is none.
inline Levels quantize(const Floats& adversarial, const Floats& warped, const Floats& radius,
                       const Shape& s) {
  constexpr double slack = 1e-6;
  Levels levels(adversarial.size());
  for (int64_t row = 0; row < s.n; ++row)
    for (int64_t c = 0; c < s.channel; ++c)
      for (int64_t p = 0; p < s.plane(); ++p) {
        const int64_t at = row * s.image() + c * s.plane() + p;
        const double centre = warped[at], r = radius[row];
        const double least = std::ceil(255 * (std::max(centre - r, 0.0) - slack));
        const double most = std::floor(255 * (std::min(centre + r, 1.0) + slack));
        const double level = least > most
                                 ? std::nearbyint(255 * centre)
                                 : std::clamp(std::nearbyint(255.0 * adversarial[at]), least, most);
        levels[row * s.image() + p * s.channel + c] = static_cast<uint8_t>(level);
      }
  return levels;
}

}  // namespace jataug

// Binary PGM (P5) and PPM (P6) files of 8 bits: an image format that needs no library.
#pragma once

#include <cstdint>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

namespace jataug {

namespace detail {

inline int64_t header_number(std::istream& file, const std::string& path) {
  while (file && (std::isspace(file.peek()) || file.peek() == '#')) {
    if (file.get() == '#') file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  int64_t number = 0;
  if (!(file >> number) || number < 1 || number > 1 << 20)
    throw std::runtime_error(path + ": expected a binary PGM or PPM image, its header is damaged");
  return number;
}

}  // namespace detail

/// The pixels (height, width, channel) of an image of this size.
inline std::vector<uint8_t> read_image(const std::string& path, int64_t channel, int64_t height,
                                       int64_t width) {
  std::ifstream file(path, std::ios::binary);
  std::string magic(2, ' ');
  file.read(&magic[0], 2);
  if (magic != "P5" && magic != "P6")
    throw std::runtime_error(path + ": expected a binary PGM (P5) or PPM (P6) image");
  const int64_t columns = detail::header_number(file, path), rows = detail::header_number(file, path);
  const int64_t most = detail::header_number(file, path), own = magic == "P5" ? 1 : 3;
  if (most != 255) throw std::runtime_error(path + ": expected 8-bit levels up to 255");
  if (columns != width || rows != height)
    throw std::runtime_error(path + ": expected " + std::to_string(width) + "x" + std::to_string(height) +
                             " pixels, the model's size, got " + std::to_string(columns) + "x" +
                             std::to_string(rows) + "; scale it first");
  if (own != channel && own != 1)
    throw std::runtime_error(path + ": expected a grey image, got a coloured one");
  file.get();
  std::vector<uint8_t> stored(own * height * width), pixels(channel * height * width);
  if (!file.read(reinterpret_cast<char*>(stored.data()), static_cast<std::streamsize>(stored.size())))
    throw std::runtime_error(path + ": expected a whole image, this one is truncated");
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = stored[own == channel ? i : i / channel];
  return pixels;
}

/// Write one image (height, width, channel): PGM for one channel, PPM for three.
inline void write_image(const std::string& path, const uint8_t* pixels, int64_t channel, int64_t height,
                        int64_t width) {
  std::ofstream file(path, std::ios::binary);
  file << (channel == 1 ? "P5" : "P6") << "\n" << width << " " << height << "\n255\n";
  file.write(reinterpret_cast<const char*>(pixels), channel * height * width);
  if (!file.flush()) throw std::runtime_error(path + ": cannot be written");
}

}  // namespace jataug

// A reader of JSON text: as much of it as manifests and the test vector need.
#pragma once

#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace jataug {

class Json {
 public:
  enum class Kind { null, boolean, number, text, array, object };

  static Json parse(const std::string& text) {
    const char* at = text.c_str();
    Json value = read(at);
    skip(at);
    if (*at) fail("the end");
    return value;
  }

  bool is_null() const { return kind_ == Kind::null; }
  bool is_number() const { return kind_ == Kind::number; }
  bool boolean() const { return need(Kind::boolean, "true or false").number_ != 0; }
  double number() const { return need(Kind::number, "a number").number_; }
  int64_t integer() const { return static_cast<int64_t>(number()); }
  const std::string& text() const { return need(Kind::text, "a text").text_; }
  const std::vector<Json>& array() const { return need(Kind::array, "an array").array_; }
  const std::map<std::string, Json>& object() const { return need(Kind::object, "an object").object_; }

  const Json& operator[](const std::string& key) const {
    const auto found = object().find(key);
    if (found == object().end()) fail("the key " + key);
    return found->second;
  }

  template <class T>
  std::vector<T> numbers() const {
    std::vector<T> values;
    for (const Json& item : array()) values.push_back(static_cast<T>(item.number()));
    return values;
  }

 private:
  Kind kind_ = Kind::null;
  double number_ = 0;
  std::string text_;
  std::vector<Json> array_;
  std::map<std::string, Json> object_;

  [[noreturn]] static void fail(const std::string& expected) {
    throw std::runtime_error("JSON: expected " + expected);
  }

  const Json& need(Kind kind, const char* name) const {
    if (kind_ != kind) fail(name);
    return *this;
  }

  static void skip(const char*& at) {
    while (std::isspace(static_cast<unsigned char>(*at))) ++at;
  }

  static bool take(const char*& at, const std::string& word) {
    skip(at);
    if (std::strncmp(at, word.c_str(), word.size()) != 0) return false;
    at += word.size();
    return true;
  }

  static bool take(const char*& at, char wanted) {
    skip(at);
    if (*at != wanted) return false;
    ++at;
    return true;
  }

  static Json read(const char*& at) {
    Json value;
    skip(at);
    if (*at == '{') return read_object(at);
    if (*at == '[') return read_array(at);
    if (*at == '"') {
      value.kind_ = Kind::text;
      value.text_ = read_text(at);
    } else if (*at == 't' || *at == 'f') {
      value.kind_ = Kind::boolean;
      value.number_ = *at == 't';
      if (!take(at, value.number_ ? "true" : "false")) fail("true or false");
    } else if (*at == 'n') {
      if (!take(at, "null")) fail("null");
    } else {
      char* end = nullptr;
      value.kind_ = Kind::number;
      value.number_ = std::strtod(at, &end);
      if (end == at) fail("a value");
      at = end;
    }
    return value;
  }

  static Json read_object(const char*& at) {
    Json value;
    value.kind_ = Kind::object;
    take(at, '{');
    if (take(at, '}')) return value;
    do {
      skip(at);
      const std::string key = read_text(at);
      if (!take(at, ':')) fail("a colon");
      value.object_[key] = read(at);
    } while (take(at, ','));
    if (!take(at, '}')) fail("a closing brace");
    return value;
  }

  static Json read_array(const char*& at) {
    Json value;
    value.kind_ = Kind::array;
    take(at, '[');
    if (take(at, ']')) return value;
    do value.array_.push_back(read(at));
    while (take(at, ','));
    if (!take(at, ']')) fail("a closing bracket");
    return value;
  }

  static std::string read_text(const char*& at) {
    if (*at++ != '"') fail("a text");
    std::string text;
    for (; *at && *at != '"'; ++at) {
      if (*at == '\\') {
        ++at;
        // Escaped characters matter in no key or value that a driver reads: they stay as written.
        text += '\\';
        if (!*at) fail("a closing quote");
      }
      text += *at;
    }
    if (*at++ != '"') fail("a closing quote");
    return text;
  }
};

}  // namespace jataug

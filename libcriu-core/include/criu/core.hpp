// SPDX-License-Identifier: LGPL-2.1-only
// C++ over criu/core.h, header-only: handles that free themselves, errors as exceptions.
//
//   criu::core::Options options;
//   options.set("tree", "4711").set("images-dir", "/var/tmp/checkpoint").set("leave-running");
//   criu::core::dump(options);
#pragma once

#include <criu/core.h>

#include <exception>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace criu::core {

class Error : public std::exception {
 public:
  explicit Error(criu_core_error* error) : error_(error, criu_core_error_free) {}
  const char* what() const noexcept override { return criu_core_error_text(error_.get()); }
  criu_core_error_kind kind() const { return criu_core_error_get_kind(error_.get()); }
  const char* operation() const { return criu_core_error_operation(error_.get()); }
  const char* object() const { return criu_core_error_object(error_.get()); }
  const char* hint() const { return criu_core_error_hint(error_.get()); }
  int code() const { return criu_core_error_errno(error_.get()); }

 private:
  std::shared_ptr<criu_core_error> error_;  // exceptions are copied
};

namespace detail {

// Calls a function that takes `criu_core_error**` last.
template <typename Function, typename... Arguments>
auto call(Function function, Arguments... arguments) {
  criu_core_error* error = nullptr;
  const auto result = function(arguments..., &error);
  if (error != nullptr) {
    throw Error(error);
  }
  return result;
}

}  // namespace detail

class Options {
 public:
  Options() : options_(criu_core_options_new()) { need(); }
  Options(const Options& other) : options_(criu_core_options_copy(other.options_)) { need(); }
  Options(Options&& other) noexcept : options_(other.options_) { other.options_ = nullptr; }
  Options& operator=(Options other) noexcept {
    std::swap(options_, other.options_);
    return *this;
  }
  ~Options() { criu_core_options_free(options_); }

  Options& set(const char* name) {
    detail::call(criu_core_options_set, options_, name, static_cast<const char*>(nullptr));
    return *this;
  }
  Options& set(const char* name, const std::string& value) {
    detail::call(criu_core_options_set, options_, name, value.c_str());
    return *this;
  }
  Options& load(const std::string& file) {
    detail::call(criu_core_options_load, options_, file.c_str());
    return *this;
  }
  criu_core_options* get() const { return options_; }

 private:
  void need() const {
    if (options_ == nullptr) {
      throw std::bad_alloc();
    }
  }
  criu_core_options* options_;
};

inline void dump(const Options& options) { detail::call(criu_core_dump, options.get()); }
inline void pre_dump(const Options& options) { detail::call(criu_core_pre_dump, options.get()); }

inline pid_t restore(const Options& options) { return detail::call(criu_core_restore, options.get()); }

struct Verdict {
  bool good;
  std::vector<std::string> lines;
};

inline Verdict check(const Options& options) {
  Verdict verdict{};
  const auto say = [](const char* line, void* lines) {
    static_cast<std::vector<std::string>*>(lines)->emplace_back(line);
  };
  verdict.good = detail::call(criu_core_check, options.get(), static_cast<void (*)(const char*, void*)>(say),
                              static_cast<void*>(&verdict.lines)) == 1;
  return verdict;
}

inline bool feature(const char* name) { return criu_core_feature(name) == 1; }

}  // namespace criu::core

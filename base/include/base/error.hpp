// SPDX-License-Identifier: LGPL-2.1-only
// The one error type of the suite. It never crosses a C ABI, a fork or freestanding code.
#pragma once

#include <cerrno>
#include <cstring>
#include <exception>
#include <string>
#include <utility>

namespace base {

// What went wrong, in the four parts that a user needs: the operation ("open"), the object ("fd 7 of task 42"),
// the errno (0 when the kernel was not asked), and, where one exists, the option or action that would help.
class Error : public std::exception {
 public:
  Error(std::string operation, std::string object, int error, std::string hint = {})
      : operation_(std::move(operation)), object_(std::move(object)), error_(error), hint_(std::move(hint)) {
    what_ = operation_;
    if (!object_.empty()) {
      what_ += ": " + object_;
    }
    if (error_ != 0) {
      what_ += std::string(": ") + std::strerror(error_);
    }
    if (!hint_.empty()) {
      what_ += " (" + hint_ + ")";
    }
  }

  const char* what() const noexcept override { return what_.c_str(); }
  const std::string& operation() const { return operation_; }
  const std::string& object() const { return object_; }
  const std::string& hint() const { return hint_; }
  int code() const { return error_; }

 private:
  std::string operation_, object_;
  int error_;
  std::string hint_;
  std::string what_;
};

// Throws an Error with the current errno when a call failed, else passes its result on.
template <typename T>
T check(T result, const char* operation, std::string object = {}, std::string hint = {}) {
  if (result < 0) {
    throw Error(operation, std::move(object), errno, std::move(hint));
  }
  return result;
}

}  // namespace base

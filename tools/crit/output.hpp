// SPDX-License-Identifier: GPL-2.0-only
// Where results go: standard output, or a file that appears only when it is complete.
#pragma once

#include <string>
#include <string_view>

#include "base/fd.hpp"

namespace crit {

class Output {
 public:
  // Standard output, when the path is "-".
  explicit Output(const std::string& path);
  Output(base::Fd fd, std::string name) : fd_(std::move(fd)), name_(std::move(name)) {}
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;
  // What was not finished leaves nothing behind, and the file that was there as it was.
  ~Output();

  void write(std::string_view bytes);
  void put(char byte) { write({&byte, 1}); }
  void u32(std::uint32_t value) { write({reinterpret_cast<const char*>(&value), sizeof value}); }
  void finish();
  bool is_stdout() const { return stdout_; }

 private:
  void flush();

  base::Fd fd_;
  std::string name_;
  std::string temporary_;  // renamed to name_ at the end; empty: written in place
  std::string buffer_;
  bool stdout_ = false;
};

}  // namespace crit

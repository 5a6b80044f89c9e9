// SPDX-License-Identifier: LGPL-2.1-only
#include "files/gone_process.hpp"

#include <signal.h>

#include <charconv>

#include "files/common.hpp"
#include "files/saver.hpp"

namespace criu::files {

using base::Error;

namespace {

// The number after a prefix, with the path going on behind it.
pid_t take_number(std::string_view& path, std::string_view prefix) {
  if (!path.starts_with(prefix)) {
    return 0;
  }
  pid_t number = 0;
  const auto* begin = path.data() + prefix.size();
  const auto* end = path.data() + path.size();
  const auto result = std::from_chars(begin, end, number);
  if (result.ec != std::errc{} || (result.ptr != end && *result.ptr != '/')) {
    return 0;
  }
  path.remove_prefix(static_cast<std::size_t>(result.ptr - path.data()));
  return number;
}

}  // namespace

ToldOf told_of(std::string_view path) {
  ToldOf told;
  told.process = take_number(path, "/proc/");
  if (told.process != 0) {
    told.thread = take_number(path, "/task/");
  }
  return told;
}

void save_gone_process(Saver& saver, const Description& description, std::uint32_t id, const std::string& path) {
  const auto told = told_of(path);
  const auto what = description.what();
  if (told.process == 0) {
    throw Error("cannot dump", what + " is not there any more", 0);
  }
  if (told.thread != 0 && told.thread != told.process) {
    throw Error("cannot dump", what + " tells of a thread that is gone", 0);
  }
  if (description.fd < 0) {
    throw Error("cannot dump", what + " is in /proc, and the process it is of is gone", 0);
  }
  // The stand-in needs the pid.
  if (::kill(told.process, 0) == 0 || errno == EPERM) {
    throw Error("cannot dump",
                fmt::format("{} tells of a process that is gone, and pid {} is another's by now", what, told.process),
                0);
  }
  saver.removed().save_process(saver, id, told.process);
}

}  // namespace criu::files

// SPDX-License-Identifier: GPL-2.0-only
#include "output.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <cstdio>

#include "base/error.hpp"

namespace crit {

namespace {

constexpr std::size_t buffer_size = 256 * 1024;

mode_t usual_mode() {
  const mode_t mask = ::umask(0);
  ::umask(mask);
  return 0666 & ~mask;
}

}  // namespace

Output::Output(const std::string& path) : name_(path) {
  if (path == "-") {
    stdout_ = true;
    name_ = "standard output";
    fd_ = base::Fd(base::check(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0), "write", name_));
    return;
  }
  struct stat st {};
  const bool exists = ::lstat(path.c_str(), &st) == 0;
  if (exists && !S_ISREG(st.st_mode)) {
    // A device, a pipe, a link to somewhere: only the thing itself will do.
    fd_ = base::Fd(base::check(::open(path.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC), "open", path));
    return;
  }
  std::string pattern = path + ".XXXXXX";
  fd_ = base::Fd(base::check(::mkostemp(pattern.data(), O_CLOEXEC), "create", path));
  temporary_ = pattern;
  base::check(::fchmod(fd_.get(), exists ? st.st_mode & 07777 : usual_mode()), "create", path);
}

Output::~Output() {
  if (fd_ && !temporary_.empty()) {
    ::unlink(temporary_.c_str());
  }
}

void Output::write(std::string_view bytes) {
  buffer_ += bytes;
  if (buffer_.size() >= buffer_size) {
    flush();
  }
}

void Output::flush() {
  for (std::size_t done = 0; done < buffer_.size();) {
    const auto put = ::write(fd_.get(), buffer_.data() + done, buffer_.size() - done);
    if (put < 0 && errno == EINTR) {
      continue;
    }
    done += static_cast<std::size_t>(base::check(put, "write", name_));
  }
  buffer_.clear();
}

void Output::finish() {
  flush();
  if (!temporary_.empty()) {
    base::check(::rename(temporary_.c_str(), name_.c_str()), "create", name_);
  }
  const int fd = fd_.release();
  base::check(::close(fd), "write", name_);
}

}  // namespace crit

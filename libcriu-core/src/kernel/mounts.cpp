// SPDX-License-Identifier: LGPL-2.1-only
#include "kernel/mounts.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <climits>
#include <cstring>

#include "base/error.hpp"
#include "kernel/procfs.hpp"

namespace criu::kernel {

using base::check;

namespace {

std::string_view next_word(std::string_view& line) {
  const auto end = line.find(' ');
  const auto word = line.substr(0, end);
  line.remove_prefix(end == std::string_view::npos ? line.size() : end + 1);
  return word;
}

// Blanks and the like stand there as \040.
std::string unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned char byte = 0;
    if (text[i] == '\\' && i + 3 < text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 4, byte, 8).ptr == text.data() + i + 4) {
      out.push_back(static_cast<char>(byte));
      i += 3;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

bool parse_mount(std::string_view line, Mount& mount) {
  const auto number = [](std::string_view word, auto& value) {
    return std::from_chars(word.data(), word.data() + word.size(), value).ec == std::errc{};
  };
  const bool good = number(next_word(line), mount.id) && number(next_word(line), mount.parent);
  const auto device = next_word(line);
  std::uint32_t major = 0, minor = 0;
  const auto colon = device.find(':');
  if (!good || colon == std::string_view::npos || !number(device, major) || !number(device.substr(colon + 1), minor)) {
    return false;
  }
  mount.dev = major << 20 | minor;
  mount.root = unescape(next_word(line));
  mount.point = unescape(next_word(line));
  mount.options = unescape(next_word(line));
  for (auto word = next_word(line); !word.empty() && word != "-"; word = next_word(line)) {
    const auto group = word.substr(word.find(':') + 1);
    if (word.starts_with("shared:")) {
      number(group, mount.shared);
    } else if (word.starts_with("master:")) {
      number(group, mount.master);
    }
    mount.unbindable |= word == "unbindable";
  }
  if (!line.empty()) {
    mount.type = std::string(next_word(line));
    mount.source = unescape(next_word(line));
    mount.super_options = unescape(line);
    constexpr std::string_view pipe = "pipe_ino=";
    if (const auto at = line.find(pipe); mount.type == "autofs" && at != std::string_view::npos) {
      number(line.substr(at + pipe.size()), mount.autofs_pipe);
    }
  }
  return !mount.point.empty();
}

// open_by_handle_at wants a descriptor that was opened for reading, which whoever watches the directory would notice,
// or the current directory.
class CurrentDirectory {
 public:
  explicit CurrentDirectory(int directory) : before_(::open(".", O_PATH | O_DIRECTORY | O_CLOEXEC)) {
    entered_ = before_ && ::fchdir(directory) == 0;
  }
  CurrentDirectory(const CurrentDirectory&) = delete;
  CurrentDirectory& operator=(const CurrentDirectory&) = delete;
  ~CurrentDirectory() {
    if (entered_) {
      [[maybe_unused]] const int back = ::fchdir(before_.get());  // nothing depends on it: all names are absolute
    }
  }
  explicit operator bool() const { return entered_; }

 private:
  base::Fd before_;
  bool entered_;
};

}  // namespace

int mount_id(int fd) {
  struct statx info {};
  return ::statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &info) == 0 ? static_cast<int>(info.stx_mnt_id) : -1;
}

bool is_below(std::string_view path, std::string_view directory) {
  return path.starts_with(directory) &&
         (path.size() == directory.size() || directory == "/" || path[directory.size()] == '/');
}

std::vector<Mount> parse_mountinfo(std::string_view text) {
  std::vector<Mount> mounts;
  while (!text.empty()) {
    const auto end = text.find('\n');
    Mount mount;
    if (parse_mount(text.substr(0, end), mount)) {
      mounts.push_back(std::move(mount));
    }
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return mounts;
}

Mounts::Mounts()
    : mounts_(parse_mountinfo(procfs::read_file(AT_FDCWD, "/proc/self/mountinfo", "the mounts of this process"))) {}

const Mount* Mounts::by_id(int id) const {
  const auto found = std::find_if(mounts_.begin(), mounts_.end(), [id](const Mount& mount) { return mount.id == id; });
  return found == mounts_.end() ? nullptr : &*found;
}

std::vector<const Mount*> Mounts::of_device(std::uint32_t dev) const {
  std::vector<const Mount*> found;
  const auto add = [&](auto wanted) {
    for (const auto& mount : mounts_) {
      if (wanted(mount)) {
        found.push_back(&mount);
      }
    }
  };
  add([dev](const Mount& mount) { return mount.dev == dev; });
  if (found.empty()) {
    add([](const Mount& mount) { return mount.type == "btrfs"; });
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const Mount* a, const Mount* b) { return a->root.size() < b->root.size(); });
  return found;
}

base::Fd Mounts::open(const Mount& mount, int root) {
  const char* point = root < 0 ? mount.point.c_str() : mount.point == "/" ? "." : mount.point.c_str() + 1;
  base::Fd fd(::openat(root, point, O_PATH | O_NOFOLLOW | O_CLOEXEC));
  return fd && mount_id(fd.get()) == mount.id ? std::move(fd) : base::Fd();
}

base::Fd Mounts::open_handle(std::uint32_t dev, const FileHandle& handle,
                             const std::function<bool(int fd)>& accept) const {
  alignas(file_handle) char room[sizeof(file_handle) + MAX_HANDLE_SZ];
  if (handle.bytes.empty() || handle.bytes.size() > MAX_HANDLE_SZ) {
    return {};
  }
  auto* raw = reinterpret_cast<file_handle*>(room);
  raw->handle_bytes = static_cast<unsigned>(handle.bytes.size());
  raw->handle_type = handle.type;
  std::copy(handle.bytes.begin(), handle.bytes.end(), room + sizeof(file_handle));
  for (const auto* mount : of_device(dev)) {
    const auto root = open(*mount);
    const CurrentDirectory inside(root.get());
    if (!inside) {
      continue;  // hidden, or a single file
    }
    base::Fd fd(::open_by_handle_at(AT_FDCWD, raw, O_PATH | O_CLOEXEC));
    if (fd && accept(fd.get())) {
      return fd;
    }
  }
  return {};
}

std::string path_of(int fd) {
  char text[PATH_MAX];
  const auto size = ::readlink(fmt::format("/proc/self/fd/{}", fd).c_str(), text, sizeof text);
  if (size <= 0 || text[0] != '/') {
    return {};
  }
  std::string path(text, static_cast<std::size_t>(size));
  struct stat here {
  }, there{};
  return ::fstat(fd, &here) == 0 && ::lstat(path.c_str(), &there) == 0 && here.st_dev == there.st_dev &&
                 here.st_ino == there.st_ino
             ? path
             : std::string();
}

bool MarkProbe::is(int fd, const WatchMark& mark) {
  if (!inotify_) {
    inotify_ = base::Fd(check(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK), "make an inotify descriptor to compare with"));
  }
  const auto wd =
      ::inotify_add_watch(inotify_.get(), fmt::format("/proc/self/fd/{}", fd).c_str(), IN_DELETE_SELF | IN_ONESHOT);
  if (wd < 0) {
    return false;
  }
  const auto marks = inotify_marks(procfs::read_file(
      AT_FDCWD, fmt::format("/proc/self/fdinfo/{}", inotify_.get()).c_str(), "the own inotify descriptor"));
  ::inotify_rm_watch(inotify_.get(), wd);
  char told[4096];
  while (::read(inotify_.get(), told, sizeof told) > 0) {
  }
  return marks.size() == 1 && marks[0].ino == mark.ino && marks[0].dev == mark.dev &&
         (marks[0].handle.bytes == mark.handle.bytes || mark.handle.bytes.empty());
}

}  // namespace criu::kernel

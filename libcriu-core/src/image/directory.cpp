// SPDX-License-Identifier: LGPL-2.1-only
#include "image/directory.hpp"

#include <fcntl.h>

#include "base/error.hpp"

namespace criu::image {

Directory::Directory(const std::string& path)
    : fd_(base::check(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open image directory", path)) {}

base::Fd Directory::open_file(const std::string& path) const {
  return opener_ ? opener_(path) : base::Fd(::openat(fd_.get(), path.c_str(), O_RDONLY | O_CLOEXEC));
}

Directory Directory::below(const std::string& name) const {
  auto fd = open_file(name);
  base::check(fd.get(), "open the directory", name);
  Directory directory(std::move(fd));
  if (opener_) {
    directory.open_through([above = opener_, name](const std::string& path) { return above(name + "/" + path); });
  }
  return directory;
}

base::Fd Directory::create_raw(const Type& type, std::uint64_t number) const {
  return create_file(fd_.get(), file_name(type, number));
}

base::Fd Directory::open_raw(const Type& type, std::uint64_t number) const {
  const auto name = file_name(type, number);
  auto fd = open_file(name);
  base::check(fd.get(), "open image", name);
  return fd;
}

std::optional<Reader> Directory::open(const Type& type, std::uint64_t number) const {
  auto name = file_name(type, number);
  auto fd = open_file(name);
  if (!fd) {
    if (errno == ENOENT) {
      return std::nullopt;
    }
    throw base::Error("open image", name, errno);
  }
  return Reader(std::move(fd), std::move(name), type);
}

Reader Directory::require(const Type& type, std::uint64_t number) const {
  if (auto reader = open(type, number)) {
    return std::move(*reader);
  }
  throw base::Error("open image", file_name(type, number), ENOENT, "is this the directory of a complete checkpoint?");
}

void Directory::put(const Type& type, std::uint64_t number, const google::protobuf::MessageLite& record) const {
  auto writer = create(type, number);
  writer.write(record);
  writer.finish();
}

}  // namespace criu::image

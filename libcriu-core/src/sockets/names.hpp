// SPDX-License-Identifier: LGPL-2.1-only
// The names of UNIX sockets: paths, where their files went since, abstract ones.
#pragma once

#include <fdinfo.pb.h>

#include <cstdint>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/fd.hpp"

namespace criu {

struct RestoreContext;

namespace files {
struct Description;
}

namespace sockets {

struct UnixInfo;

// Dump. Fills in the name and what leads to its file.
void save_name(const files::Description&, const UnixInfo&, images::unix_sk_entry&);

// Restore. Whose name is at which path: found out in the master before the first task. The dead socket files that stand
// there are removed; a living one, or anything else, is an Error.
class Names {
 public:
  Names() = default;
  explicit Names(const RestoreContext&);
  Names(Names&&) noexcept = default;
  Names& operator=(Names&&) noexcept = default;
  // Unless kept, removes the files that the restore made.
  ~Names();
  void keep() { paths_.clear(); }

  // Gives a socket its name, if it has one.
  void bind(int fd, const images::unix_sk_entry&, const std::string& what) const;

 private:
  std::unordered_set<std::uint32_t> owners_;  // ids of sockets whose file is at the path
  std::vector<std::string> paths_;
};

// How to reach a bound socket, wherever its file is.
struct Target {
  std::string address;  // as connect takes it
  base::Fd file;        // the address leads through it
};
Target target_of(int fd, const images::unix_sk_entry&, const std::string& what);

// Whoever connects to a socket needs the right to write to its file: everybody has, for as long as the scope lasts.
class AnybodyMay {
 public:
  AnybodyMay(const Target&, const std::string& what);
  ~AnybodyMay();
  AnybodyMay(const AnybodyMay&) = delete;
  AnybodyMay& operator=(const AnybodyMay&) = delete;

 private:
  std::string path_;
  unsigned mode_ = 0;
};

// How to reach a socket outside the tree, by its name.
std::string address_of(const std::string& name);

}  // namespace sockets
}  // namespace criu

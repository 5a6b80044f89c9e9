// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/tarball.hpp"

#include <archive.h>
#include <archive_entry.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <memory>

#include "base/error.hpp"

namespace criu::namespaces::tarball {

using base::check;
using base::Error;

namespace {

// The calls that are needed, by their names. The library stays loaded.
#define CRIU_ARCHIVE_CALLS(X)                \
  X(archive_write_new)                       \
  X(archive_write_add_filter_gzip)           \
  X(archive_write_set_format_pax_restricted) \
  X(archive_write_open_fd)                   \
  X(archive_write_header)                    \
  X(archive_write_data_block)                \
  X(archive_write_data)                      \
  X(archive_write_finish_entry)              \
  X(archive_write_close)                     \
  X(archive_write_free)                      \
  X(archive_read_disk_new)                   \
  X(archive_read_disk_set_behavior)          \
  X(archive_read_disk_open)                  \
  X(archive_read_disk_descend)               \
  X(archive_read_next_header2)               \
  X(archive_read_data_block)                 \
  X(archive_read_new)                        \
  X(archive_read_support_filter_gzip)        \
  X(archive_read_support_format_tar)         \
  X(archive_read_open_fd)                    \
  X(archive_read_free)                       \
  X(archive_write_disk_new)                  \
  X(archive_write_disk_set_options)          \
  X(archive_entry_new)                       \
  X(archive_entry_clear)                     \
  X(archive_entry_free)                      \
  X(archive_entry_filetype)                  \
  X(archive_entry_pathname)                  \
  X(archive_entry_size)                      \
  X(archive_entry_linkresolver_new)          \
  X(archive_entry_linkresolver_set_strategy) \
  X(archive_entry_linkify)                   \
  X(archive_entry_linkresolver_free)         \
  X(archive_error_string)                    \
  X(archive_errno)

struct Library {
#define CRIU_DECLARE(call) decltype(&::call) call = nullptr;  // NOLINT(bugprone-macro-parentheses): a name
  CRIU_ARCHIVE_CALLS(CRIU_DECLARE)
#undef CRIU_DECLARE

  Library() {
    void* handle = ::dlopen("libarchive.so.13", RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      throw Error("load libarchive", ::dlerror(), 0, "what is in a tmpfs of the tree is saved and restored with it");
    }
// NOLINTBEGIN(bugprone-macro-parentheses): what it is given is a name.
#define CRIU_FIND(call)                                               \
  call = reinterpret_cast<decltype(&::call)>(::dlsym(handle, #call)); \
  if (call == nullptr) {                                              \
    throw Error("load libarchive", "it has no " #call, 0);            \
  }
    CRIU_ARCHIVE_CALLS(CRIU_FIND)
// NOLINTEND(bugprone-macro-parentheses)
#undef CRIU_FIND
  }
};

const Library& library() {
  static const Library loaded;
  return loaded;
}

struct Freed {
  void operator()(archive* reader) const { library().archive_read_free(reader); }
  void operator()(archive_entry* entry) const { library().archive_entry_free(entry); }
  void operator()(archive_entry_linkresolver* links) const { library().archive_entry_linkresolver_free(links); }
};
struct Written {
  void operator()(archive* writer) const { library().archive_write_free(writer); }
};
using Reader = std::unique_ptr<archive, Freed>;
using Writer = std::unique_ptr<archive, Written>;
using Entry = std::unique_ptr<archive_entry, Freed>;

// A warning is a loss as well.
void good(int result, archive* archive, const char* operation, const std::string& what) {
  if (result != ARCHIVE_OK) {
    const char* text = library().archive_error_string(archive);
    throw Error(operation, what + (text != nullptr ? std::string(": ") + text : ""), 0);
  }
}

// The library works from the current directory.
class Inside {
 public:
  Inside(int directory, const std::string& what)
      : before_(check(::open(".", O_PATH | O_DIRECTORY | O_CLOEXEC), "open the current directory")) {
    check(::fchdir(directory), "enter", what);
  }
  ~Inside() { [[maybe_unused]] const int back = ::fchdir(before_.get()); }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  base::Fd before_;
};

constexpr int end_of_archive = ARCHIVE_EOF;

void copy_data(archive* from, archive* to, const std::string& what) {
  const void* block = nullptr;
  std::size_t size = 0;
  la_int64_t offset = 0;
  int result = 0;
  while ((result = library().archive_read_data_block(from, &block, &size, &offset)) != end_of_archive) {
    good(result, from, "read", what);
    if (library().archive_write_data_block(to, block, size, offset) < 0) {
      good(ARCHIVE_FATAL, to, "write", what);
    }
  }
}

// A tar archive takes a file's bytes from first to last: holes are zeros to it.
class Stream {
 public:
  Stream(archive* from, archive* to, la_int64_t size, const std::string& what)
      : from_(from), to_(to), size_(size), what_(what) {}

  void copy() {
    const void* block = nullptr;
    std::size_t size = 0;
    la_int64_t offset = 0;
    int result = 0;
    while ((result = library().archive_read_data_block(from_, &block, &size, &offset)) != end_of_archive) {
      good(result, from_, "read", what_);
      zeros_up_to(offset);
      put(block, size);
    }
    zeros_up_to(size_);
  }

 private:
  void zeros_up_to(la_int64_t offset) {
    static const char zeros[65536] = {};
    while (at_ < offset) {
      put(zeros, static_cast<std::size_t>(std::min<la_int64_t>(offset - at_, sizeof zeros)));
    }
  }
  void put(const void* bytes, std::size_t size) {
    if (library().archive_write_data(to_, bytes, size) < 0) {
      good(ARCHIVE_FATAL, to_, "save", what_);
    }
    at_ += static_cast<la_int64_t>(size);
  }

  archive *from_, *to_;
  la_int64_t size_, at_ = 0;
  const std::string& what_;
};

}  // namespace

void load() { library(); }

void write(int directory, int file, const std::string& what) {
  const auto& lib = library();
  const Inside inside(directory, what);
  const Writer out(lib.archive_write_new());
  good(lib.archive_write_add_filter_gzip(out.get()), out.get(), "compress", what);
  good(lib.archive_write_set_format_pax_restricted(out.get()), out.get(), "save", what);
  good(lib.archive_write_open_fd(out.get(), file), out.get(), "save", what);
  const Reader in(lib.archive_read_disk_new());
  good(lib.archive_read_disk_set_behavior(in.get(), ARCHIVE_READDISK_NO_TRAVERSE_MOUNTS), in.get(), "read", what);
  good(lib.archive_read_disk_open(in.get(), "."), in.get(), "read", what);
  const std::unique_ptr<archive_entry_linkresolver, Freed> links(lib.archive_entry_linkresolver_new());
  lib.archive_entry_linkresolver_set_strategy(links.get(), ARCHIVE_FORMAT_TAR_PAX_RESTRICTED);
  const Entry entry(lib.archive_entry_new());
  for (;;) {
    lib.archive_entry_clear(entry.get());
    const int result = lib.archive_read_next_header2(in.get(), entry.get());
    if (result == end_of_archive) {
      break;
    }
    good(result, in.get(), "read", what);
    lib.archive_read_disk_descend(in.get());
    if (lib.archive_entry_filetype(entry.get()) == AE_IFSOCK) {
      continue;
    }
    auto* linked = entry.get();
    archive_entry* later = nullptr;
    lib.archive_entry_linkify(links.get(), &linked, &later);
    good(lib.archive_write_header(out.get(), linked), out.get(), "save", what);
    if (lib.archive_entry_size(linked) > 0) {
      Stream(in.get(), out.get(), lib.archive_entry_size(linked), what).copy();
    }
    good(lib.archive_write_finish_entry(out.get()), out.get(), "save", what);
  }
  good(lib.archive_write_close(out.get()), out.get(), "save", what);
}

void extract(int file, int directory, const std::string& what) {
  const auto& lib = library();
  const Inside inside(directory, what);
  const Reader in(lib.archive_read_new());
  good(lib.archive_read_support_filter_gzip(in.get()), in.get(), "read", what);
  good(lib.archive_read_support_format_tar(in.get()), in.get(), "read", what);
  constexpr std::size_t block = 65536;
  good(lib.archive_read_open_fd(in.get(), file, block), in.get(), "read", what);
  const Writer out(lib.archive_write_disk_new());
  constexpr int options = ARCHIVE_EXTRACT_OWNER | ARCHIVE_EXTRACT_PERM | ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_ACL |
                          ARCHIVE_EXTRACT_XATTR | ARCHIVE_EXTRACT_SPARSE | ARCHIVE_EXTRACT_SECURE_NODOTDOT |
                          ARCHIVE_EXTRACT_SECURE_SYMLINKS | ARCHIVE_EXTRACT_SECURE_NOABSOLUTEPATHS;
  good(lib.archive_write_disk_set_options(out.get(), options), out.get(), "restore", what);
  const Entry entry(lib.archive_entry_new());
  for (;;) {
    const int result = lib.archive_read_next_header2(in.get(), entry.get());
    if (result == end_of_archive) {
      break;
    }
    good(result, in.get(), "read", what);
    const auto name = what + "/" + lib.archive_entry_pathname(entry.get());
    good(lib.archive_write_header(out.get(), entry.get()), out.get(), "restore", name);
    if (lib.archive_entry_size(entry.get()) > 0) {
      copy_data(in.get(), out.get(), name);
    }
    good(lib.archive_write_finish_entry(out.get()), out.get(), "restore", name);
  }
  good(lib.archive_write_close(out.get()), out.get(), "restore", what);
}

}  // namespace criu::namespaces::tarball

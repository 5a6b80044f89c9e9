// SPDX-License-Identifier: LGPL-2.1-only
#include "files/unsupported.hpp"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

namespace criu::files {

namespace {

struct Name {
  const char* link;  // how it begins
  const char* name;
};

constexpr Name names[] = {
    {"anon_inode:[userfaultfd]", "a userfaultfd"},
    {"anon_inode:bpf-prog", "a BPF program"},
    {"anon_inode:bpf_link", "a BPF link"},
    {"anon_inode:[perf_event]", "a perf event"},
    {"anon_inode:seccomp notify", "a seccomp listener"},
    {"anon_inode:[landlock-ruleset]", "a Landlock ruleset"},
    {"anon_inode:[fscontext]", "a filesystem being configured (fsopen)"},
    {"anon_inode:kvm", "a virtual machine (KVM)"},
    {"anon_inode:dmabuf", "a DMA buffer"},
    {"/dmabuf:", "a DMA buffer"},
    {"anon_inode:sync_file", "a fence of a graphics device"},
    {"/secretmem", "secret memory (memfd_secret)"},
};

std::string name_socket(int fd) {
  int family = 0;
  socklen_t size = sizeof family;
  if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) < 0) {
    return "a socket";
  }
  return fmt::format("a socket of family {}", family);
}

}  // namespace

std::string name_unsupported(const Description& description) {
  if (S_ISSOCK(description.stat.st_mode)) {
    return name_socket(description.own);
  }
  for (const auto& [link, name] : names) {
    if (description.link.starts_with(link)) {
      return name;
    }
  }
  return "of a kind that is not known";
}

}  // namespace criu::files

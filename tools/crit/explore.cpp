// SPDX-License-Identifier: GPL-2.0-only
#include "explore.hpp"

#include <fmt/format.h>
#include <sys/mman.h>

namespace crit {

namespace {

void ps(const Checkpoint& checkpoint, Output& to) {
  to.write(fmt::format("{:>7}{:>7}{:>7}   {}\n", "PID", "PGID", "SID", "COMM"));
  checkpoint.depth_first([&](const pb::pstree_entry& task, std::size_t depth) {
    to.write(fmt::format("{:7}{:7}{:7}   {}{}\n", task.pid(), task.pgid(), task.sid(), std::string(4 * depth, ' '),
                         checkpoint.core(task.pid()).tc().comm()));
  });
}

void fds(const Checkpoint& checkpoint, Output& to) {
  for (const auto& task : checkpoint.tree()) {
    to.write(fmt::format("{}\n", task.pid()));
    if (const auto ids = checkpoint.ids(task.pid())) {
      for (const auto& fd : checkpoint.all<pb::fdinfo_entry>(fmt::format("fdinfo-{}.img", ids->files_id()))) {
        to.write(fmt::format("\t{:7}: {}\n", fd.fd(), checkpoint.describe(fd.type(), fd.id())));
      }
    }
    if (const auto fs = checkpoint.first<pb::fs_entry>(fmt::format("fs-{}.img", task.pid()))) {
      to.write(fmt::format("\t{:>7}: {}\n", "cwd", checkpoint.describe(pb::REG, fs->cwd_id())));
      to.write(fmt::format("\t{:>7}: {}\n", "root", checkpoint.describe(pb::REG, fs->root_id())));
    }
  }
}

// Objects that have nothing but long numbers get short ones.
class ShortNumbers {
 public:
  std::uint64_t of(std::uint64_t number) { return numbers_.emplace(number, numbers_.size() + 1).first->second; }

 private:
  std::map<std::uint64_t, std::uint64_t> numbers_;
};

std::string kind_of_area(const Checkpoint& checkpoint, const pb::vma_entry& vma, ShortNumbers& numbers) {
  const auto status = vma.status();
  if ((status & sysv_segment) != 0) {
    return fmt::format(" ips[{:x}]", numbers.of(vma.shmid()));
  }
  if ((status & anon_shared) != 0) {
    return fmt::format(" shmem[{:x}]", numbers.of(vma.shmid()));
  }
  if ((status & socket_ring) != 0) {
    return fmt::format(" packet[{:x}]", numbers.of(vma.shmid()));
  }
  if ((status & (file_private | file_shared)) != 0) {
    return " " + checkpoint.describe(pb::REG, static_cast<std::uint32_t>(vma.shmid())) +
           (vma.pgoff() != 0 ? fmt::format(" + {:#x}", vma.pgoff()) : "") + ((status & file_shared) != 0 ? " (s)" : "");
  }
  if ((status & stack) != 0) {
    return " [stack]";
  }
  if ((status & vsyscall) != 0) {
    return " [vsyscall]";
  }
  if ((status & vdso) != 0) {
    return " [vdso]";
  }
  return (vma.flags() & MAP_GROWSDOWN) != 0 ? " [stack?]" : "";
}

void mems(const Checkpoint& checkpoint, Output& to) {
  ShortNumbers numbers;
  for (const auto& task : checkpoint.tree()) {
    to.write(fmt::format("{}\n", task.pid()));
    const auto mm = checkpoint.mm(task.pid());
    if (!mm) {
      continue;
    }
    to.write(fmt::format("\t{:<36}    {}\n", "exe", checkpoint.describe(pb::REG, mm->exe_file_id())));
    for (const auto& vma : mm->vmas()) {
      to.write(fmt::format("\t{:<36}{}{}{}{}{}\n", fmt::format("{:08x}-{:08x}", vma.start(), vma.end()),
                           (vma.prot() & PROT_READ) != 0 ? 'r' : '-', (vma.prot() & PROT_WRITE) != 0 ? 'w' : '-',
                           (vma.prot() & PROT_EXEC) != 0 ? 'x' : '-', kind_of_area(checkpoint, vma, numbers),
                           (vma.status() & regular) != 0 ? "" : " *"));
    }
  }
}

void rss(const Checkpoint& checkpoint, Output& to) {
  for (const auto& task : checkpoint.tree()) {
    to.write(fmt::format("{}\n", task.pid()));
    const auto mm = checkpoint.mm(task.pid());
    if (!mm) {
      continue;
    }
    const auto pages = Pages::read(checkpoint.path(), fmt::format("pagemap-{}.img", task.pid()));
    int at = 0;
    int shown = -1;
    for (const auto& run : pages.runs()) {
      std::string line;
      while (at < mm->vmas_size() && mm->vmas(at).end() <= run.start) {
        ++at;
      }
      for (; at < mm->vmas_size() && mm->vmas(at).start() < run.end(); ++at) {
        const auto& vma = mm->vmas(at);
        line += line.empty() ? "" : fmt::format("\n\t{:23}", "");
        if (at == shown) {
          line += " ~";
          continue;
        }
        shown = at;
        line += fmt::format(" {:08x} / {:<8}", vma.start(), (vma.end() - vma.start()) / page_size);
        if ((vma.status() & (file_private | file_shared)) != 0) {
          line += " " + checkpoint.describe(pb::REG, static_cast<std::uint32_t>(vma.shmid()));
        }
      }
      at -= at > 0 ? 1 : 0;
      to.write(fmt::format("{:<24}{}\n", fmt::format("\t{:x} / {:<8}", run.start, run.size / page_size), line));
    }
  }
}

}  // namespace

bool explore(const Checkpoint& checkpoint, std::string_view what, Output& to) {
  static const std::map<std::string_view, void (*)(const Checkpoint&, Output&)> views{
      {"ps", ps}, {"fds", fds}, {"mems", mems}, {"rss", rss}};
  const auto view = views.find(what);
  if (view == views.end()) {
    return false;
  }
  view->second(checkpoint, to);
  return true;
}

}  // namespace crit

// SPDX-License-Identifier: GPL-2.0-only
#include "facts.hpp"

#include <fmt/format.h>
#include <pipe.pb.h>
#include <sys/mman.h>

#include <algorithm>
#include <filesystem>

#include "text.hpp"

namespace crit {

namespace {

std::string state_name(const pb::core_entry& core) {
  switch (static_cast<TaskState>(core.tc().task_state())) {
    case TaskState::alive:
      return "running";
    case TaskState::zombie:
      return "zombie";
    case TaskState::stopped:
      return "stopped";
  }
  return fmt::format("state {}", core.tc().task_state());
}

std::string rights_of(const pb::vma_entry& area) {
  return {(area.prot() & PROT_READ) != 0 ? 'r' : '-', (area.prot() & PROT_WRITE) != 0 ? 'w' : '-',
          (area.prot() & PROT_EXEC) != 0 ? 'x' : '-'};
}

void name_area(const Checkpoint& checkpoint, const pb::vma_entry& area, AreaFacts& facts) {
  const auto status = area.status();
  const auto is = [status](std::uint32_t bits) { return (status & bits) != 0; };
  if (is(vsyscall | vdso | vvar)) {
    facts.kind = "kernel";
    facts.what = is(vdso) ? "[vdso]" : is(vvar) ? "[vvar]" : "[vsyscall]";
  } else if (is(file_private | file_shared)) {
    facts.kind = is(file_shared) || is(memfd_area) ? "shared" : "file";
    facts.what = checkpoint.path_of(static_cast<std::uint32_t>(area.shmid())).value_or("unknown path");
  } else if (is(anon_shared)) {
    facts.kind = "shared";
    facts.what = fmt::format("[{} {}]", is(sysv_segment) ? "System V segment" : "shared memory", area.shmid());
  } else if (is(heap)) {
    facts.kind = "heap";
    facts.what = "[heap]";
  } else if (is(stack) || (area.flags() & MAP_GROWSDOWN) != 0) {
    facts.kind = "stack";
    facts.what = "[stack]";
  } else {
    facts.kind = "anonymous";
  }
}

// The part of each area that was saved; both lists ascend.
void count_saved(const Pages& pages, std::vector<AreaFacts>& areas) {
  for (auto& area : areas) {
    for (auto run = pages.from(area.start); run != pages.runs().end() && run->start < area.end; ++run) {
      if (run->fd >= 0) {
        const auto part = std::min(run->end(), area.end) - std::max(run->start, area.start);
        area.saved += part;
        area.parent += run->parent ? part : 0;
      }
    }
  }
}

void read_memory(const Checkpoint& checkpoint, TaskFacts& task) {
  const auto mm = checkpoint.mm(task.pid);
  if (!mm) {
    return;
  }
  task.exe = checkpoint.path_of(mm->exe_file_id()).value_or("unknown path");
  for (const auto& area : mm->vmas()) {
    if ((area.status() & guard) != 0 || area.start() >= area.end()) {
      continue;
    }
    AreaFacts facts{area.start(), area.end()};
    facts.rights = rights_of(area);
    name_area(checkpoint, area, facts);
    task.areas.push_back(std::move(facts));
  }
  count_saved(Pages::read(checkpoint.path(), fmt::format("pagemap-{}.img", task.pid)), task.areas);
  for (const auto& area : task.areas) {
    task.mapped += area.size();
    task.saved += area.saved;
  }
}

// What the two ends of a pipe or socket have in common, seen from one of them.
struct Ends {
  std::string own, peer;
};

Ends ends_of(const pb::file_entry& file) {
  if (file.has_pipe()) {
    const auto writes = (file.pipe().flags() & 3) == 1;
    const auto end = [&](bool writing) {
      return fmt::format("pipe[{}] {}", file.pipe().pipe_id(), writing ? "writing" : "reading");
    };
    return {end(writes), end(!writes)};
  }
  if (file.has_usk()) {
    return {fmt::format("unix[{}]", file.usk().ino()),
            file.usk().peer() != 0 ? fmt::format("unix[{}]", file.usk().peer()) : ""};
  }
  return {};
}

std::string what_is(const Checkpoint& checkpoint, const pb::fdinfo_entry& fd) {
  const auto* file = checkpoint.find_file(fd.id());
  if (file == nullptr) {
    return "unknown";
  }
  if (file->has_memfd()) {
    return checkpoint.path_of(fd.id()).value_or("memfd");
  }
  if (file->has_pipe()) {
    return ends_of(*file).own;
  }
  if (file->has_usk()) {
    const auto& name = file->usk().name();
    return ends_of(*file).own + (name.empty() ? "" : " " + quoted_printable(name));
  }
  return checkpoint.path_of(fd.id()).value_or("");
}

void read_descriptors(const Checkpoint& checkpoint, TaskFacts& task, Facts& all) {
  const auto ids = checkpoint.ids(task.pid);
  if (!ids) {
    return;
  }
  for (const auto& fd : checkpoint.all<pb::fdinfo_entry>(fmt::format("fdinfo-{}.img", ids->files_id()))) {
    DescriptorFacts facts{fd.fd(), fd.type(), fd.id(), (fd.flags() & 1) != 0, what_is(checkpoint, fd), ""};
    if (const auto* file = checkpoint.find_file(fd.id())) {
      const auto [own, peer] = ends_of(*file);
      facts.peer = peer;
      if (!own.empty()) {
        all.ends[own].push_back({task.pid, fd.fd()});
      }
    }
    all.holders[fd.id()].push_back({task.pid, fd.fd()});
    task.descriptors.push_back(std::move(facts));
  }
}

std::string group_of(const std::string& name) {
  if (name.starts_with("pages-")) {
    return "memory";
  }
  if (name.starts_with("pagemap-") || name.starts_with("mm-")) {
    return "memory maps";
  }
  if (name.starts_with("core-") || name.starts_with("ids-") || name == "pstree.img" || name == "seccomp.img") {
    return "tasks";
  }
  if (name.starts_with("fdinfo-") || name == "files.img" || name.starts_with("ghost-") || name.starts_with("fs-") ||
      name.starts_with("remap-") || name.starts_with("memfd") || name.ends_with("-data.img") ||
      name == "filelocks.img") {
    return "files";
  }
  if (name.starts_with("tcp-") || name.starts_with("sk-")) {
    return "sockets";
  }
  return name.ends_with(".img") || name.starts_with("stats-") ? "other" : "no image";
}

void read_images(const Checkpoint& checkpoint, Facts& all) {
  for (const auto& entry : std::filesystem::directory_iterator(checkpoint.path())) {
    std::error_code gone;
    if (!entry.is_regular_file(gone)) {
      continue;
    }
    const auto name = entry.path().filename().string();
    const auto size = entry.file_size(gone);
    if (gone) {
      continue;
    }
    all.images.push_back({name, group_of(name), size});
    all.image_bytes += size;
  }
  std::sort(all.images.begin(), all.images.end(), [](const ImageFacts& a, const ImageFacts& b) {
    return a.size != b.size ? a.size > b.size : a.name < b.name;
  });
}

void read_task(const Checkpoint& checkpoint, const pb::pstree_entry& entry, std::size_t depth, Facts& all) {
  const auto core = checkpoint.core(entry.pid());
  TaskFacts task;
  task.pid = entry.pid();
  task.ppid = entry.ppid();
  task.depth = depth;
  task.name = core.tc().comm();
  task.state = state_name(core);
  task.threads = Checkpoint::threads(entry);
  read_memory(checkpoint, task);
  read_descriptors(checkpoint, task, all);
  all.threads += task.threads.size();
  all.mapped += task.mapped;
  all.saved += task.saved;
  all.tasks.push_back(std::move(task));
}

}  // namespace

Facts facts_of(const Checkpoint& checkpoint) {
  Facts all;
  checkpoint.depth_first(
      [&](const pb::pstree_entry& task, std::size_t depth) { read_task(checkpoint, task, depth, all); });
  read_images(checkpoint, all);
  if (const auto stats = checkpoint.first<pb::stats_entry>("stats-dump"); stats && stats->has_dump()) {
    all.stats = stats->dump();
  }
  return all;
}

std::string long_size(std::uint64_t bytes) {
  static constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  auto number = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; number >= 1024; ++unit) {
    number /= 1024;
  }
  return unit == 0 || number >= 100 ? fmt::format("{:.0f} {}", number, units[unit])
                                    : fmt::format("{:.1f} {}", number, units[unit]);
}

}  // namespace crit

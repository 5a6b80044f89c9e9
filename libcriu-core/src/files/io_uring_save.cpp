// SPDX-License-Identifier: LGPL-2.1-only
#include <fcntl.h>
#include <fdinfo.pb.h>  // before <signal.h>, whose macro has the name of a field of it
#include <fmt/format.h>
#include <io-uring.pb.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "files/collect.hpp"
#include "files/io_uring.hpp"
#include "files/io_uring_requests.hpp"
#include "files/ring_memory.hpp"
#include "log.hpp"
#include "task/dump.hpp"

namespace criu::files {

using base::check;
using base::Error;

namespace {

constexpr std::uint64_t buffer_rings_from = 0x80000000;  // IORING_OFF_PBUF_RING, an offset of mappings

std::string info_of(int fd) {
  return procfs::read_file(AT_FDCWD, fmt::format("/proc/self/fdinfo/{}", fd).c_str(), "fdinfo of an io_uring");
}

bool asks_groups_by_name() {
  static const bool answer = [] {
    io_uring_params params{};
    const auto ring = make_ring(1, params, "an io_uring to try");
    std::uint32_t status[10] = {};
    constexpr int buffer_status = 26;  // IORING_REGISTER_PBUF_STATUS, 6.8
    return ::syscall(SYS_io_uring_register, ring.get(), buffer_status, status, 1) < 0 && errno == ENOENT;
  }();
  return answer;
}

// fdinfo shows how wide entries are, and whether there is an array of them, for entries that are waiting. If none is,
// one is made to wait for as long as it takes to look, by a process of its own: it puts the ring back even if the dump
// is killed meanwhile.
std::string info_with_entries(int fd, const std::string& what) {
  constexpr std::size_t room = 1 << 16;
  const base::Mapping text(::mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), room);
  io_uring_params layout{};
  const auto model = make_ring(1, layout, "an io_uring to try");  // the counters lie alike in all
  layout.flags |= setup_no_sqarray;
  layout.sq_entries = layout.cq_entries = 1;
  RingMemory ring(fd, layout, what);
  const pid_t pid = check(::fork(), "fork");
  if (pid == 0) {
    ::setsid();
    const auto sq = ring.sq_tail(), cq = ring.cq_tail();
    const bool no_entry = sq == ring.sq_head(), no_completion = cq == ring.cq_head();
    ring.sq_tail() = no_entry ? sq + 1 : sq;
    ring.cq_tail() = no_completion ? cq + 1 : cq;
    char path[64];
    *fmt::format_to(path, "/proc/self/fdinfo/{}", fd) = '\0';
    const int info = ::open(path, O_RDONLY | O_CLOEXEC);
    for (std::size_t done = 0; done < room - 1;) {
      const auto got = ::read(info, text.data() + done, room - 1 - done);
      if (got <= 0) {
        break;
      }
      done += static_cast<std::size_t>(got);
    }
    ring.sq_tail() = sq;
    auto shown = no_completion ? cq + 1 : cq;
    // A request that ended meanwhile has counted up itself.
    if (no_completion) {
      __atomic_compare_exchange_n(&ring.cq_tail(), &shown, cq, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return reinterpret_cast<const char*>(text.data());
}

std::uint32_t width_flags(const std::string& text) {
  std::uint32_t flags = 0;
  flags |= text.find(", e0:") != std::string::npos ? IORING_SETUP_SQE128 : 0;
  flags |= text.find(", extra1:") != std::string::npos ? IORING_SETUP_CQE32 : 0;
  const auto entries = text.find("SQEs:");
  const auto line = entries == std::string::npos ? entries : text.find('\n', entries);
  if (line != std::string::npos && text.compare(line + 1, 5, "CQEs:") == 0) {
    flags |= setup_no_sqarray;
  }
  return flags;
}

class RingSaver {
 public:
  RingSaver(DumpContext& dump, task::FrozenTree& tree, Collector& files, std::size_t task, const RingFile& ring)
      : dump_(dump), tree_(tree), files_(files), task_(task), ring_(ring) {}

  images::io_uring_entry save() {
    info_ = look();
    ask(tree_.tasks()[task_].tids.front(), 0);
    params_.flags = flags();
    refuse_what_is_not_told();
    params_.flags |= IORING_SETUP_CQSIZE;
    params_.cq_entries = info_.cq_entries;
    const auto model = make_ring(info_.sq_entries, params_, "a ring like " + ring_.what);
    params_.flags &= ~IORING_SETUP_CQSIZE;
    RingMemory memory(ring_.own.get(), params_, ring_.what);
    save_requests(memory);
    save_memory(memory);
    save_files();
    for (const auto& buffer : info_.buffers) {
      auto& saved = *entry_.add_buffers();
      saved.set_index(buffer.slot);
      saved.set_address(buffer.address);
      saved.set_length(buffer.length);
    }
    entry_.set_buffer_slots(info_.buffer_slots);
    return std::move(entry_);
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const { throw Error("cannot dump", ring_.what, 0, why); }

  RingInfo look() const {
    auto info = parse_ring_info(info_of(ring_.own.get()));
    if (!info.complete) {
      refuse("the kernel does not tell what it is doing");
    }
    return info;
  }

  // In the thread that the ring belongs to, if it is one's.
  void ask(pid_t tid, std::uint32_t wait_for) {
    parasite::RingQuery question{};
    question.fd = ring_.fd;
    question.wait_for = wait_for;
    question.reference = asks_groups_by_name() ? 1 : 0;
    answer_ = tree_.query_ring(task_, {tid}, question).front();
  }

  std::uint32_t flags() const {
    if (answer_.probe == -EEXIST) {
      refuse("it belongs to a thread that is not the first of its task (IORING_SETUP_SINGLE_ISSUER)");
    }
    auto flags = width_flags(info_with_entries(ring_.own.get(), ring_.what));
    if (belongs_to_thread()) {
      flags |= IORING_SETUP_SINGLE_ISSUER;
      // Before Linux 6.13 nobody tells; without it completions come by themselves, which does for all.
      if (answer_.resize == -EFAULT) {
        flags |= IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
      }
    }
    return flags;
  }

  // We are another task than the one that it would belong to.
  bool belongs_to_thread() const {
    constexpr std::uintptr_t nowhere = 8;
    return ::syscall(SYS_io_uring_register, ring_.own.get(), IORING_REGISTER_PROBE, nowhere, 1) < 0 && errno == EEXIST;
  }

  void refuse_what_is_not_told() const {
    if (info_.sq_thread >= 0) {
      refuse("a thread of the kernel takes its entries (IORING_SETUP_SQPOLL), which this version does not restore");
    }
    if (answer_.enter == -EBADFD) {
      refuse("it is not enabled yet (IORING_SETUP_R_DISABLED), and nobody tells its restrictions");
    }
    if (answer_.napi == -EINVAL && asks_groups_by_name_and_napi()) {
      refuse("it polls devices (IORING_SETUP_IOPOLL), which this version does not restore");
    }
    if (answer_.event == -EBUSY) {
      refuse("an eventfd is registered with it, and the kernel does not tell which");
    }
    if (answer_.buffer_group >= 0) {
      refuse(fmt::format("buffers are provided to it (group {}), and the kernel does not tell where they are",
                         answer_.buffer_group));
    }
    if (answer_.registered != 0) {
      refuse("a ring of its task is registered in place of a descriptor (IORING_REGISTER_RING_FDS)");
    }
  }

  // Whether this kernel gives the answer that IORING_SETUP_IOPOLL is known by, to rings without it another.
  static bool asks_groups_by_name_and_napi() {
    io_uring_params params{};
    const auto ring = make_ring(1, params, "an io_uring to try");
    constexpr int napi = 27;  // IORING_REGISTER_NAPI, 6.9
    constexpr std::uintptr_t nowhere = 8;
    return ::syscall(SYS_io_uring_register, ring.get(), napi, nowhere, 1) < 0 && errno == EFAULT;
  }

  // What ends by itself is waited for, inside the task, since some of it ends only when the task looks.
  void save_requests(RingMemory& memory) {
    auto requests = requests_in_flight(memory, info_);
    while (requests.has_other && !dump_.look_only) {
      const auto before = info_.cq_tail;
      ask(tree_.tasks()[task_].tids.front(), info_.cq_tail - memory.cq_head() + 1);
      info_ = look();
      if (info_.cq_tail == before) {
        refuse(fmt::format("a request is in flight (operation {}) that cannot be made again, and that does not end",
                           requests.other));
      }
      requests = requests_in_flight(memory, info_);
    }
    if (!requests.certain) {
      refuse("requests are in flight that its memory does not show any more");
    }
    for (const auto& request : requests.requests) {
      entry_.add_in_flight(request.data(), request.size());
    }
  }

  void save_memory(RingMemory& memory) {
    entry_.set_id(ring_.id);
    entry_.set_flags(params_.flags);
    std::string layout(reinterpret_cast<const char*>(&params_.sq_off), sizeof params_.sq_off);
    entry_.set_layout(layout.append(reinterpret_cast<const char*>(&params_.cq_off), sizeof params_.cq_off));
    entry_.set_sq_entries(info_.sq_entries);
    entry_.set_cq_entries(info_.cq_entries);
    entry_.set_sq_head(info_.sq_head);
    entry_.set_cq_tail(info_.cq_tail);
    entry_.set_sq_tail(memory.sq_tail());
    entry_.set_cq_head(memory.cq_head());
    entry_.set_sq_flags(memory.sq_flags());
    entry_.set_sq_dropped(memory.sq_dropped());
    entry_.set_cq_flags(memory.cq_flags());
    entry_.set_cq_overflow(memory.cq_overflow());
    const auto put = [](std::string& field, std::span<const std::byte> bytes) {
      field.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    };
    put(*entry_.mutable_array(), std::as_bytes(memory.array()));
    put(*entry_.mutable_entries(), memory.entries());
    put(*entry_.mutable_completions(), memory.completions());
    for (const auto& completion : info_.kept) {
      auto& kept = *entry_.add_kept();
      kept.set_user_data(completion.user_data);
      kept.set_result(completion.result);
      kept.set_flags(completion.flags);
    }
  }

  // The kernel tells a path; which open file it is, the descriptors of the task have to tell.
  void save_files() {
    entry_.set_file_slots(info_.file_slots);
    if (info_.files.empty()) {
      return;
    }
    const procfs::Task proc(ring_.pid);
    std::map<std::string, std::set<std::uint32_t>> by_path;
    for (const auto& [fd, id] : files_.saver().registry().table(ring_.pid).by_fd) {
      by_path[proc.link(fmt::format("fd/{}", fd).c_str())].insert(id);
    }
    for (const auto& [slot, path] : info_.files) {
      const auto& found = by_path[path];
      if (found.size() != 1) {
        refuse(
            fmt::format("of the file that is registered in slot {} the kernel tells no more than '{}', and {} open "
                        "files of the task could be it",
                        slot, path, found.size()));
      }
      auto& file = *entry_.add_files();
      file.set_index(slot);
      file.set_file_id(*found.begin());
    }
  }

  DumpContext& dump_;
  task::FrozenTree& tree_;
  Collector& files_;
  std::size_t task_;
  const RingFile& ring_;
  RingInfo info_;
  io_uring_params params_{};
  parasite::RingQuery answer_{};
  images::io_uring_entry entry_;
};

// The areas of rings say the inode until now.
void name_areas(DumpContext& dump, pid_t pid, const std::vector<RingFile>& rings, images::mm_entry& mm) {
  for (auto& vma : *mm.mutable_vmas()) {
    if ((vma.status() & memory::io_uring) == 0) {
      continue;
    }
    const auto ring =
        std::find_if(rings.begin(), rings.end(), [&](const RingFile& r) { return r.inode == vma.shmid(); });
    const auto what = fmt::format("area {:x}-{:x} of task {}", vma.start(), vma.end(), pid);
    if (ring == rings.end()) {
      dump.obstacles.emplace_back("cannot dump", what, 0, "it is of an io_uring that no task has a descriptor of");
    } else if (vma.pgoff() >= buffer_rings_from) {
      dump.obstacles.emplace_back(
          "cannot dump", what, 0,
          "it has buffers that are provided to an io_uring, which this version does not restore");
    } else {
      vma.set_shmid(ring->id);
    }
  }
}

std::size_t task_of(const task::FrozenTree& tree, const RingFile& ring) {
  std::size_t task = 0;
  while (tree.tasks()[task].pid != ring.pid) {
    ++task;
  }
  return task;
}

bool has_area(const images::mm_entry& mm, const RingFile& ring) {
  return std::any_of(mm.vmas().begin(), mm.vmas().end(),
                     [&](const auto& vma) { return (vma.status() & memory::io_uring) != 0 && vma.shmid() == ring.id; });
}

}  // namespace

void quiet_rings(task::FrozenTree& tree, const std::vector<RingFile>& rings) {
  for (const auto& ring : rings) {
    try {
      tree.quiet_ring(task_of(tree, ring), ring.fd);
    } catch (const Error& error) {
      LOG_WARN("{} is not quiet yet: {}", ring.what, error.what());
    }
  }
}

void save_rings(DumpContext& dump, task::FrozenTree& tree, Collector& files, std::vector<task::SavedTask>& saved) {
  const auto& rings = files.saver().rings();
  for (std::size_t i = 0; i < tree.tasks().size(); ++i) {
    name_areas(dump, tree.tasks()[i].pid, rings, saved[i].mm);
  }
  for (const auto& ring : rings) {
    dump.attempt([&] {
      const auto task = task_of(tree, ring);
      if (!has_area(saved[task].mm, ring)) {
        throw Error("cannot dump", ring.what, 0,
                    "the task has not mapped it (or its memory is the task's own, IORING_SETUP_NO_MMAP)");
      }
      files.saver().image(image::type::io_uring).write(RingSaver(dump, tree, files, task, ring).save());
    });
  }
}

}  // namespace criu::files

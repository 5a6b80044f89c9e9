// SPDX-License-Identifier: LGPL-2.1-only
// The C interface: turns exceptions into negative errnos, and does nothing else.
#include <compel/compel.h>

#include <cstddef>
#include <cstring>
#include <functional>

#include "error.hpp"
#include "freeze.hpp"
#include "parasite.hpp"

#define COMPEL_API extern "C" __attribute__((visibility("default")))

using compel::guarded;

namespace {

template <typename Body>
int done(Body body) noexcept {
  return guarded([&] {
    body();
    return 0;
  });
}

int freeze(pid_t pid, bool whole, const compel_options* options, compel_tree** out) noexcept {
  return done([&] {
    constexpr unsigned default_timeout = 10;
    if (options != nullptr && options->size < offsetof(compel_options, held)) {
      throw base::Error("seize", "compel_options", EINVAL, "size is not set");
    }
    compel::release_stragglers();
    const unsigned timeout =
        options == nullptr || options->timeout_seconds == 0 ? default_timeout : options->timeout_seconds;
    std::function<void()> let_go;
    if (options != nullptr && options->size >= sizeof(compel_options) && options->held != nullptr) {
      let_go = [options] {
        if (const int result = options->held(options->held_argument); result < 0) {
          throw base::Error("let go", "what held the tasks", -result);
        }
      };
    }
    *out = new compel_tree(pid, whole, timeout, let_go);  // NOLINT(bugprone-unhandled-exception-at-new): done() does
  });
}

}  // namespace

COMPEL_API const char* compel_version(void) { return COMPEL_VERSION; }

COMPEL_API int compel_freeze(pid_t root, const compel_options* options, compel_tree** out) {
  return freeze(root, true, options, out);
}

COMPEL_API int compel_seize(pid_t pid, const compel_options* options, compel_tree** out) {
  return freeze(pid, false, options, out);
}

COMPEL_API int compel_release(compel_tree* tree, compel_final final_state) {
  const std::unique_ptr<compel_tree> owned(tree);
  return done([&] {
    if (owned) {
      owned->release(final_state);
    }
    compel::release_stragglers();
  });
}

COMPEL_API size_t compel_tree_size(const compel_tree* tree) { return const_cast<compel_tree*>(tree)->tasks().size(); }

COMPEL_API compel_task* compel_tree_task(const compel_tree* tree, size_t index) {
  const auto& tasks = const_cast<compel_tree*>(tree)->tasks();
  return index < tasks.size() ? tasks[index].get() : nullptr;
}

COMPEL_API compel_task* compel_tree_find(const compel_tree* tree, pid_t pid) { return tree->find(pid); }

COMPEL_API pid_t compel_task_pid(const compel_task* task) { return task->pid(); }
COMPEL_API pid_t compel_task_ppid(const compel_task* task) { return task->ppid(); }
COMPEL_API compel_state compel_task_state(const compel_task* task) { return task->state(); }
COMPEL_API int compel_task_stop_signal(const compel_task* task) { return task->stop_signal(); }

COMPEL_API size_t compel_task_threads(const compel_task* task, const pid_t** tids) {
  if (tids != nullptr) {
    *tids = task->tids().data();
  }
  return task->tids().size();
}

COMPEL_API int compel_task_release(compel_task* task, compel_final final_state) {
  return done([&] { task->release(final_state); });
}

COMPEL_API int compel_registers(compel_task* task, pid_t tid, user_regs_struct* out) {
  return done([&] { *out = task->thread(tid).saved().registers; });
}

COMPEL_API int compel_set_registers(compel_task* task, pid_t tid, const user_regs_struct* registers) {
  return done([&] {
    compel::Thread& thread = task->thread(tid);
    if (task->parasite != nullptr && task->parasite->inside(thread)) {
      throw base::Error("set registers", thread.describe(), EBUSY, "it is inside a resident parasite");
    }
    thread.set_home(*registers);
  });
}

COMPEL_API int compel_signal_mask(compel_task* task, pid_t tid, uint64_t* out) {
  return done([&] { *out = task->thread(tid).saved().mask; });
}

COMPEL_API int compel_rseq(compel_task* task, pid_t tid, compel_rseq_info* out) {
  return done([&] {
    const compel::Saved& saved = task->thread(tid).saved();
    if (!saved.rseq_known) {
      throw base::Error("read rseq", task->thread(tid).describe(), EOPNOTSUPP, "the kernel tells it since Linux 5.13");
    }
    *out = saved.rseq;
  });
}

COMPEL_API int compel_syscall(compel_task* task, pid_t tid, long number, const uint64_t arguments[6], int64_t* result) {
  return done([&] { *result = task->run_syscall(task->thread(tid), number, arguments); });
}

COMPEL_API int compel_read(compel_task* task, uint64_t address, void* buffer, size_t size) {
  return done([&] { compel::read_memory(task->memory(), address, buffer, size); });
}

COMPEL_API int compel_write(compel_task* task, uint64_t address, const void* buffer, size_t size) {
  return done([&] { compel::write_memory(task->memory(), address, buffer, size); });
}

COMPEL_API int compel_take_fd(compel_task* task, int remote_fd) {
  return guarded([&] { return task->take_fd(remote_fd); });
}

COMPEL_API int compel_load(compel_task* task, const compel_blob* blob, size_t data_size, compel_parasite** out) {
  return done([&] { *out = new compel_parasite(*task, *blob, data_size); });
}

COMPEL_API void* compel_data(const compel_parasite* parasite) { return parasite->data(); }
COMPEL_API size_t compel_data_size(const compel_parasite* parasite) { return parasite->data_size(); }
COMPEL_API uint64_t compel_data_address(const compel_parasite* parasite) { return parasite->data_address(); }

COMPEL_API int compel_symbol_address(const compel_parasite* parasite, const char* name, uint64_t* out) {
  return done([&] { *out = parasite->symbol(name); });
}

COMPEL_API int compel_call(compel_parasite* parasite, const char* entry, size_t argument_offset, long* result) {
  return done([&] {
    const long value = parasite->call(entry, argument_offset);
    if (result != nullptr) {
      *result = value;
    }
  });
}

COMPEL_API int compel_call_threads(compel_parasite* parasite, const pid_t* tids, size_t count, const char* entry,
                                   size_t argument_offset, size_t argument_stride, long* results) {
  return done([&] { parasite->call_threads(tids, count, entry, argument_offset, argument_stride, results); });
}

COMPEL_API int compel_start(compel_parasite* parasite) {
  return done([&] { parasite->start(); });
}

COMPEL_API int compel_stop(compel_parasite* parasite) {
  return done([&] { parasite->stop(); });
}

COMPEL_API int compel_post(compel_parasite* parasite, const char* entry, size_t argument_offset) {
  return done([&] { parasite->post(entry, argument_offset); });
}

COMPEL_API int compel_wait(compel_parasite* parasite, long* result) {
  return done([&] {
    const long value = parasite->wait();
    if (result != nullptr) {
      *result = value;
    }
  });
}

COMPEL_API int compel_give_fd(compel_parasite* parasite, int fd) {
  return guarded([&] { return parasite->give_fd(fd); });
}

COMPEL_API ssize_t compel_log(compel_parasite* parasite, char* buffer, size_t size) {
  return guarded([&] { return static_cast<ssize_t>(parasite->log(buffer, size)); });
}

COMPEL_API int compel_unload(compel_parasite* parasite) {
  const std::unique_ptr<compel_parasite> owned(parasite);
  return done([&] {
    if (owned) {
      owned->unload();
    }
  });
}

// SPDX-License-Identifier: LGPL-2.1-only
// C++ over compel.h: owning handles, exceptions, nothing else. Header only, so it adds nothing to the library's ABI.
//
//   compel::Tree tree = compel::Tree::freeze(pid);
//   for (compel::Task task : tree.tasks()) {
//     compel::Parasite parasite = task.load(blob, 4096);
//     long answer = parasite.call("entry");
//   }
//   tree.release();   // or let the destructor do it: both resume
#pragma once

#include <compel/compel.h>

#include <exception>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace compel {

class Error : public std::exception {
 public:
  explicit Error(int code) : code_(-code) {
    const compel_error* last = compel_last_error();
    operation_ = last->operation;
    object_ = last->object;
    hint_ = last->hint;
    what_ = last->text;
  }
  const char* what() const noexcept override { return what_.c_str(); }
  int code() const { return code_; }  // errno, positive
  const std::string& operation() const { return operation_; }
  const std::string& object() const { return object_; }
  const std::string& hint() const { return hint_; }

 private:
  int code_;
  std::string operation_, object_, hint_, what_;
};

inline int check(int result) {
  if (result < 0) {
    throw Error(result);
  }
  return result;
}

enum class Final { resume = COMPEL_RESUME, stop = COMPEL_STOP, kill = COMPEL_KILL };
enum class State { alive = COMPEL_ALIVE, stopped = COMPEL_STOPPED, zombie = COMPEL_ZOMBIE };

struct Options {
  unsigned timeout_seconds = 10;
  std::function<int()> held{};  // lets tasks go that something else holds; 0 or a negative errno, no exceptions
};

// Owns a loaded blob. When its task is released before, nothing of it is left there and all calls fail.
class Parasite {
 public:
  Parasite() = default;
  explicit Parasite(compel_parasite* handle) : handle_(handle) {}
  Parasite(Parasite&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Parasite& operator=(Parasite&& other) noexcept {
    if (this != &other) {
      compel_unload(std::exchange(handle_, std::exchange(other.handle_, nullptr)));
    }
    return *this;
  }
  Parasite(const Parasite&) = delete;
  Parasite& operator=(const Parasite&) = delete;
  ~Parasite() { compel_unload(handle_); }

  explicit operator bool() const { return handle_ != nullptr; }
  compel_parasite* get() const { return handle_; }

  void* data() const { return compel_data(handle_); }
  template <typename T>
  T& data_as(std::size_t offset = 0) const {
    return *reinterpret_cast<T*>(static_cast<char*>(data()) + offset);
  }
  std::size_t data_size() const { return compel_data_size(handle_); }
  std::uint64_t data_address() const { return compel_data_address(handle_); }
  std::uint64_t symbol(const char* name) const {
    std::uint64_t address = 0;
    check(compel_symbol_address(handle_, name, &address));
    return address;
  }

  long call(const char* entry, std::size_t argument_offset = 0) {
    long result = 0;
    check(compel_call(handle_, entry, argument_offset, &result));
    return result;
  }
  std::vector<long> call_in_threads(const std::vector<pid_t>& tids, const char* entry, std::size_t argument_offset = 0,
                                    std::size_t argument_stride = 0) {
    std::vector<long> results(tids.size());
    check(compel_call_threads(handle_, tids.data(), tids.size(), entry, argument_offset, argument_stride,
                              results.data()));
    return results;
  }

  void start() { check(compel_start(handle_)); }
  void stop() { check(compel_stop(handle_)); }
  void post(const char* entry, std::size_t argument_offset = 0) { check(compel_post(handle_, entry, argument_offset)); }
  long wait() {
    long result = 0;
    check(compel_wait(handle_, &result));
    return result;
  }

  int give_fd(int fd) { return check(compel_give_fd(handle_, fd)); }
  std::string log() {
    std::string text(65536, '\0');
    const ssize_t got = compel_log(handle_, text.data(), text.size());
    text.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
    return text;
  }
  void unload() { check(compel_unload(std::exchange(handle_, nullptr))); }

 private:
  compel_parasite* handle_ = nullptr;
};

// A process of a tree. A plain reference: the tree owns it.
class Task {
 public:
  explicit Task(compel_task* handle) : handle_(handle) {}
  compel_task* get() const { return handle_; }

  pid_t pid() const { return compel_task_pid(handle_); }
  pid_t ppid() const { return compel_task_ppid(handle_); }
  State state() const { return static_cast<State>(compel_task_state(handle_)); }
  int stop_signal() const { return compel_task_stop_signal(handle_); }
  std::vector<pid_t> tids() const {
    const pid_t* tids = nullptr;
    const std::size_t count = compel_task_threads(handle_, &tids);
    return std::vector<pid_t>(tids, tids + count);
  }
  void release(Final final_state = Final::resume) {
    check(compel_task_release(handle_, static_cast<compel_final>(final_state)));
  }

  user_regs_struct registers(pid_t tid) const {
    user_regs_struct registers{};
    check(compel_registers(handle_, tid, &registers));
    return registers;
  }
  void set_registers(pid_t tid, const user_regs_struct& registers) {
    check(compel_set_registers(handle_, tid, &registers));
  }
  std::uint64_t signal_mask(pid_t tid) const {
    std::uint64_t mask = 0;
    check(compel_signal_mask(handle_, tid, &mask));
    return mask;
  }
  compel_rseq_info rseq(pid_t tid) const {
    compel_rseq_info rseq{};
    check(compel_rseq(handle_, tid, &rseq));
    return rseq;
  }

  // What the kernel returned there: a negative errno when the call failed.
  template <typename... Arguments>
  std::int64_t syscall(long number, Arguments... arguments) {
    return syscall_in(0, number, arguments...);
  }
  template <typename... Arguments>
  std::int64_t syscall_in(pid_t tid, long number, Arguments... arguments) {
    static_assert(sizeof...(arguments) <= 6);
    const std::uint64_t values[6] = {(std::uint64_t)arguments...};
    std::int64_t result = 0;
    check(compel_syscall(handle_, tid, number, values, &result));
    return result;
  }

  void read(std::uint64_t address, void* buffer, std::size_t size) const {
    check(compel_read(handle_, address, buffer, size));
  }
  void write(std::uint64_t address, const void* buffer, std::size_t size) {
    check(compel_write(handle_, address, buffer, size));
  }
  int take_fd(int remote_fd) { return check(compel_take_fd(handle_, remote_fd)); }

  Parasite load(const compel_blob& blob, std::size_t data_size) {
    compel_parasite* parasite = nullptr;
    check(compel_load(handle_, &blob, data_size, &parasite));
    return Parasite(parasite);
  }

 private:
  compel_task* handle_;
};

// A frozen tree. Goes on as it was when this goes away, unless release() said otherwise before.
class Tree {
 public:
  static Tree freeze(pid_t root, const Options& options = {}) { return make(compel_freeze, root, options); }
  static Tree seize(pid_t pid, const Options& options = {}) { return make(compel_seize, pid, options); }

  Tree() = default;
  Tree(Tree&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Tree& operator=(Tree&& other) noexcept {
    if (this != &other) {
      compel_release(std::exchange(handle_, std::exchange(other.handle_, nullptr)), COMPEL_RESUME);
    }
    return *this;
  }
  Tree(const Tree&) = delete;
  Tree& operator=(const Tree&) = delete;
  ~Tree() { compel_release(handle_, COMPEL_RESUME); }

  compel_tree* get() const { return handle_; }
  std::size_t size() const { return compel_tree_size(handle_); }
  Task task(std::size_t index) const { return Task(compel_tree_task(handle_, index)); }
  Task root() const { return task(0); }
  std::vector<Task> tasks() const {
    std::vector<Task> all;
    for (std::size_t i = 0; i < size(); ++i) {
      all.push_back(task(i));
    }
    return all;
  }
  void release(Final final_state = Final::resume) {
    check(compel_release(std::exchange(handle_, nullptr), static_cast<compel_final>(final_state)));
  }

 private:
  template <typename Function>
  static Tree make(Function function, pid_t pid, Options options) {
    compel_options raw{};
    raw.size = sizeof raw;
    raw.timeout_seconds = options.timeout_seconds;
    if (options.held) {
      raw.held = [](void* held) { return (*static_cast<std::function<int()>*>(held))(); };
      raw.held_argument = &options.held;
    }
    Tree tree;
    check(function(pid, &raw, &tree.handle_));
    return tree;
  }

  compel_tree* handle_ = nullptr;
};

}  // namespace compel

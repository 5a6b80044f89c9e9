// SPDX-License-Identifier: LGPL-2.1-only
// What those who keep connections and those who copy them have in common: memory that both see, and the words of their
// calls to the outside.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/error.hpp"

namespace criu::sockets {

// The value of an errand of the kind "connections", and what comes with it.
enum class Call : std::uint32_t {
  lock,      // the method wanted, `silent`, the name, the ends; the answer is the method
  keep,      // the descriptor of a line, and of each connection its descriptor and name
  engage,    // the answer is what NetworkLock::tables says
  unlock,    // the tree goes on
  complete,  // its end has come
  end,       // nothing is kept any more
};

// A keeper waits for the mutex, which the dumper has: a word from it comes with the unlock. When the dumper dies the
// kernel hands the mutex on, before it closes the descriptors and lets go of the traced tasks.
struct Line {
  static constexpr int nobody = -1;

  pthread_mutex_t mutex;
  bool gone = false;  // the word: the tree is, so that silence may fall
  std::atomic<bool> at_the_end = false;
  std::atomic<int> copied = nobody;  // which of the keeper's
  int reuseaddr = 0, oobinline = 0, peek_off = -1;
  char complaint[512] = {};

  Line() {
    pthread_mutexattr_t attributes;
    ::pthread_mutexattr_init(&attributes);
    ::pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    ::pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    ::pthread_mutex_init(&mutex, &attributes);
    ::pthread_mutexattr_destroy(&attributes);
    ::pthread_mutex_lock(&mutex);
  }
  void complain(const std::string& text) { std::strncpy(complaint, text.c_str(), sizeof complaint - 1); }
};

// Between two processes of one program.
class Packed {
 public:
  template <typename T>
  Packed& put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Packed& put_text(std::string_view text) {
    put(text.size());
    bytes_ += text;
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

class Unpacked {
 public:
  explicit Unpacked(std::string_view bytes) : rest_(bytes) {}

  template <typename T>
  T take() {
    T value;
    std::memcpy(&value, part(sizeof value).data(), sizeof value);
    return value;
  }
  std::string take_text() { return std::string(part(take<std::size_t>())); }

 private:
  std::string_view part(std::size_t size) {
    if (size > rest_.size()) {
      throw base::Error("internal error", "an errand of the wrong form", 0);
    }
    const auto taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }

  std::string_view rest_;
};

}  // namespace criu::sockets

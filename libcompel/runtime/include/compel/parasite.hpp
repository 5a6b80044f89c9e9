// SPDX-License-Identifier: LGPL-2.1-only
// For code that runs inside another task: system calls, memory, a formatted log, passing descriptors. No libc below it,
// no exceptions, no static constructors.
//
//   COMPEL_ENTRY long count(void* argument) {
//     compel::rt::log("counting for task %d", compel::rt::syscall(__NR_getpid));
//     return ++*static_cast<long*>(argument);
//   }
#pragma once

#include <compel/syscall.hpp>
#include <cstddef>
#include <cstdint>

// An entry that the master can call by its name.
#define COMPEL_ENTRY extern "C" __attribute__((visibility("default"), used))

extern "C" {
// The compiler calls these four on its own account.
void* memcpy(void* to, const void* from, std::size_t size);
void* memmove(void* to, const void* from, std::size_t size);
void* memset(void* at, int value, std::size_t size);
int memcmp(const void* one, const void* other, std::size_t size);
std::size_t strlen(const char* text);
}

namespace compel::rt {

// Appends one line to the log which the master drains; a newline is added. Knows %s %c %d %u %x %p %% and the lengths
// l, ll, z; d, u, x may have a width with leading zeros ("%08x"). Outside of a parasite the line goes nowhere.
__attribute__((format(printf, 1, 2))) void log(const char* format, ...);

// The same into a buffer; returns the length without the terminating zero, at most size - 1.
__attribute__((format(printf, 3, 4))) std::size_t format(char* buffer, std::size_t size, const char* format, ...);

// The shared area, as the task sees it. Null outside of a parasite.
void* data();
std::size_t data_size();

// One descriptor over a connected unix socket. receive_fd returns its number (close-on-exec) or a negative errno:
// -ENODATA when a message without a descriptor came or the other side has closed.
int send_fd(int socket, int fd);
int receive_fd(int socket);

// False as soon as the master is gone. Entries which work for long may ask, and return early.
bool master_lives();

}  // namespace compel::rt

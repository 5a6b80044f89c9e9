// SPDX-License-Identifier: LGPL-2.1-only
#include <compel/parasite.hpp>

// The string instructions are what fits here: they are fast on every CPU with ERMS, need no vector registers, and the
// compiler cannot turn them into a call of the very function they stand in.
extern "C" {

void* memcpy(void* to, const void* from, std::size_t size) {
  void* at = to;
  asm volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(size) : : "memory");
  return to;
}

void* memmove(void* to, const void* from, std::size_t size) {
  if (reinterpret_cast<std::uintptr_t>(to) - reinterpret_cast<std::uintptr_t>(from) >= size) {
    return memcpy(to, from, size);
  }
  char* last = static_cast<char*>(to) + size - 1;
  const char* source = static_cast<const char*>(from) + size - 1;
  asm volatile("std; rep movsb; cld" : "+D"(last), "+S"(source), "+c"(size) : : "memory");
  return to;
}

void* memset(void* at, int value, std::size_t size) {
  void* to = at;
  asm volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
  return at;
}

int memcmp(const void* one, const void* other, std::size_t size) {
  const auto* a = static_cast<const volatile unsigned char*>(one);
  const auto* b = static_cast<const volatile unsigned char*>(other);
  for (; size != 0; --size, ++a, ++b) {
    const int difference = *a - *b;
    if (difference != 0) {
      return difference;
    }
  }
  return 0;
}

std::size_t strlen(const char* text) {
  const volatile char* end = text;
  while (*end != 0) {
    ++end;
  }
  return static_cast<std::size_t>(end - text);
}
}

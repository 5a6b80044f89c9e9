// SPDX-License-Identifier: LGPL-2.1-only
#include <cstdarg>

#include "internal.hpp"

namespace compel::rt {
namespace {

class Line {
 public:
  Line(char* buffer, std::size_t size) : at_(buffer), begin_(buffer), end_(size == 0 ? buffer : buffer + size - 1) {}
  void put(char c) {
    if (at_ < end_) {
      *at_++ = c;
    }
  }
  void number(unsigned long value, unsigned base, bool negative, unsigned width, char fill) {
    char digits[24];
    unsigned count = 0;
    do {
      digits[count++] = "0123456789abcdef"[value % base];
      value /= base;
    } while (value != 0);
    if (negative) {
      put('-');
    }
    for (unsigned i = count; i < width; ++i) {
      put(fill);
    }
    while (count != 0) {
      put(digits[--count]);
    }
  }
  std::size_t length() const { return static_cast<std::size_t>(at_ - begin_); }

 private:
  char *at_, *begin_, *end_;
};

// va_list is an array on some CPUs and no array on others; in a struct it can be handed on by reference on all.
struct Arguments {
  va_list values;
};

// One conversion, `format` behind its '%'. Returns what follows it.
const char* convert(Line& line, const char* format, Arguments& list) {
  char fill = ' ';
  unsigned width = 0;
  bool wide = false;
  if (*format == '0') {
    fill = '0';
  }
  for (; *format >= '0' && *format <= '9'; ++format) {
    width = width * 10 + static_cast<unsigned>(*format - '0');
  }
  for (; *format == 'l' || *format == 'z'; ++format) {
    wide = true;
  }
  switch (*format) {
    case 'd': {
      const long value = wide ? va_arg(list.values, long) : va_arg(list.values, int);
      line.number(value < 0 ? 0 - static_cast<unsigned long>(value) : static_cast<unsigned long>(value), 10, value < 0,
                  width, fill);
      break;
    }
    case 'u':
    case 'x':
      line.number(wide ? va_arg(list.values, unsigned long) : va_arg(list.values, unsigned), *format == 'u' ? 10 : 16,
                  false, width, fill);
      break;
    case 'p':
      line.put('0');
      line.put('x');
      line.number(reinterpret_cast<unsigned long>(va_arg(list.values, void*)), 16, false, 0, '0');
      break;
    case 's':
      for (const char* text = va_arg(list.values, const char*); text != nullptr && *text != 0; ++text) {
        line.put(*text);
      }
      break;
    case 'c':
      line.put(static_cast<char>(va_arg(list.values, int)));
      break;
    case 0:
      return format;
    default:
      line.put(*format);
  }
  return format + 1;
}

std::size_t format_list(char* buffer, std::size_t size, const char* format, Arguments& list) {
  Line line(buffer, size);
  while (*format != 0) {
    if (*format == '%') {
      format = convert(line, format + 1, list);
    } else {
      line.put(*format++);
    }
  }
  if (size != 0) {
    buffer[line.length()] = 0;
  }
  return line.length();
}

}  // namespace

std::size_t format(char* buffer, std::size_t size, const char* format, ...) {
  Arguments list;
  va_start(list.values, format);
  const std::size_t length = format_list(buffer, size, format, list);
  va_end(list.values);
  return length;
}

void log(const char* format, ...) {
  if (control == nullptr) {
    return;
  }
  char text[512];
  Arguments list;
  va_start(list.values, format);
  const std::size_t length = format_list(text, sizeof text - 1, format, list);
  va_end(list.values);
  text[length] = '\n';
  // Room is taken at once for the whole line, so lines of several threads do not mix.
  const std::uint32_t size = static_cast<std::uint32_t>(length) + 1;
  const std::uint32_t begin = __atomic_fetch_add(&control->log_head, size, __ATOMIC_ACQ_REL);
  for (std::uint32_t i = 0; i < size; ++i) {
    control->log[(begin + i) % COMPEL_LOG_SIZE] = static_cast<std::uint8_t>(text[i]);
  }
}

}  // namespace compel::rt

// SPDX-License-Identifier: LGPL-2.1-only
#include "error.hpp"

#include <compel/compel.h>

#include <new>
#include <string>

namespace compel {
namespace {

struct Last {
  std::string operation, object, hint, text;
  compel_error view{0, "", "", "", "no failure so far"};

  void set(int code, const std::string& what, const base::Error* error) {
    operation = error == nullptr ? "" : error->operation();
    object = error == nullptr ? "" : error->object();
    hint = error == nullptr ? "" : error->hint();
    text = what;
    view = {code, operation.c_str(), object.c_str(), hint.c_str(), text.c_str()};
  }
};

thread_local Last last;

}  // namespace

int remember_failure() noexcept {
  try {
    try {
      throw;
    } catch (const base::Error& error) {
      const int code = error.code() != 0 ? error.code() : EINVAL;
      last.set(code, error.what(), &error);
      return -code;
    } catch (const std::bad_alloc&) {
      last.set(ENOMEM, "out of memory", nullptr);
      return -ENOMEM;
    } catch (const std::exception& error) {
      last.set(EIO, error.what(), nullptr);
      return -EIO;
    }
  } catch (...) {  // no memory for the text itself
    last.view = {ENOMEM, "", "", "", "out of memory"};
    return -ENOMEM;
  }
}

}  // namespace compel

extern "C" __attribute__((visibility("default"))) const compel_error* compel_last_error(void) {
  return &compel::last.view;
}

// SPDX-License-Identifier: LGPL-2.1-only
// The C API: handles around the inner types, and the wall that no exception passes.
#include <new>

#include "action_scripts.hpp"
#include "check.hpp"
#include "criu/core.h"
#include "dump.hpp"
#include "kernel/features.hpp"
#include "log.hpp"
#include "options_table.hpp"
#include "pre_dump.hpp"
#include "restore.hpp"
#include "rpc/worker.hpp"
#include "session.hpp"
#include "version.hpp"

struct criu_core_options {
  criu::Options options;
};

struct criu_core_error {
  criu_core_error_kind kind;
  base::Error error;
};

namespace {

void hand_out(criu_core_error** to, criu_core_error_kind kind, const base::Error& error) {
  if (kind != CRIU_CORE_PRIVILEGE) {
    LOG_ERROR("{}", error.what());
  }
  if (to != nullptr && *to == nullptr) {
    *to = new criu_core_error{kind, error};
  }
}

// Runs a piece of work; what it throws becomes the error, with `failed` as the result.
template <typename Result, typename Work>
Result guarded(criu_core_error** error, Result failed, Work work) {
  try {
    try {
      return work();
    } catch (const criu::UsageError& e) {
      hand_out(error, CRIU_CORE_USAGE, e);
    } catch (const criu::PrivilegeError& e) {
      hand_out(error, CRIU_CORE_PRIVILEGE, e);
    } catch (const criu::ScriptFailed& e) {
      hand_out(error, e.event() == criu::Event::post_dump ? CRIU_CORE_POST_DUMP : CRIU_CORE_FAILED, e);
    } catch (const base::Error& e) {
      hand_out(error, CRIU_CORE_FAILED, e);
    } catch (const std::bad_alloc&) {
      hand_out(error, CRIU_CORE_FAILED, base::Error("out of memory", {}, ENOMEM));
    } catch (const std::exception& e) {
      hand_out(error, CRIU_CORE_FAILED, base::Error("internal error", e.what(), 0));
    }
  } catch (...) {
    // No memory to tell even that.
    return failed;
  }
  return failed;
}

template <typename Work>
int done(criu_core_error** error, Work work) {
  return guarded(error, -1, [&] {
    work();
    return 0;
  });
}

// The options as a command needs them: whole, and independent of the current directory.
criu::Options ready(const criu_core_options* options, criu::Command command) {
  auto own = options->options;
  criu::resolve_paths(own);
  criu::validate(own, command);
  return own;
}

}  // namespace

const char* criu_core_version(void) { return criu::version_text; }

criu_core_error_kind criu_core_error_get_kind(const criu_core_error* error) { return error->kind; }
const char* criu_core_error_text(const criu_core_error* error) { return error->error.what(); }
const char* criu_core_error_operation(const criu_core_error* error) { return error->error.operation().c_str(); }
const char* criu_core_error_object(const criu_core_error* error) { return error->error.object().c_str(); }
const char* criu_core_error_hint(const criu_core_error* error) { return error->error.hint().c_str(); }
int criu_core_error_errno(const criu_core_error* error) { return error->error.code(); }
void criu_core_error_free(criu_core_error* error) { delete error; }

criu_core_options* criu_core_options_new(void) { return new (std::nothrow) criu_core_options; }

criu_core_options* criu_core_options_copy(const criu_core_options* options) {
  return guarded<criu_core_options*>(nullptr, nullptr, [&] { return new criu_core_options(*options); });
}

void criu_core_options_free(criu_core_options* options) { delete options; }

int criu_core_options_set(criu_core_options* options, const char* name, const char* value, criu_core_error** error) {
  return done(error, [&] { criu::set_option(options->options, name, value); });
}

int criu_core_options_set_as(criu_core_options* options, const char* name, const char* value, const char* spelled,
                             criu_core_error** error) {
  return done(error, [&] { criu::set_option(options->options, name, value, spelled); });
}

int criu_core_options_load(criu_core_options* options, const char* file, criu_core_error** error) {
  return done(error, [&] { criu::load_config(options->options, file); });
}

int criu_core_options_load_defaults(criu_core_options* options, int skip_defaults, const char* file,
                                    criu_core_error** error) {
  return done(error, [&] {
    criu::load_default_configs(options->options, skip_defaults != 0, file != nullptr ? file : "");
    criu::read_environment(options->options);
  });
}

int criu_core_options_verbosity(const criu_core_options* options) { return options->options.verbosity; }
int criu_core_options_detached(const criu_core_options* options) { return options->options.detach; }
int criu_core_options_exec_cmd(const criu_core_options* options) { return options->options.exec_after; }

const criu_core_option* criu_core_option_at(size_t index) {
  static const std::vector<criu_core_option> list = [] {
    std::vector<criu_core_option> made;
    for (const auto& option : criu::option_table()) {
      made.push_back({.name = option.name,
                      .value_name = option.value_name,
                      .group = option.group,
                      .help = option.help,
                      .letter = option.letter,
                      .argument = static_cast<int>(option.takes),
                      .negatable = option.negatable,
                      .supported = option.apply != nullptr || option.harmless_value != nullptr,
                      .of_the_reader = option.of_the_reader});
    }
    return made;
  }();
  return index < list.size() ? &list[index] : nullptr;
}

void criu_core_hold_log(void) { criu::log::hold(); }
void criu_core_release_log(const criu_core_options* options) { criu::log::release(options->options.verbosity); }

int criu_core_check_privileges(const criu_core_options* options, criu_core_error** error) {
  return done(error, [&] { criu::check_privileges(options->options); });
}

int criu_core_start(criu_core_options* options, enum criu_core_command command, criu_core_error** error) {
  return done(error, [&] { criu::start_session(options->options, static_cast<criu::Command>(command)); });
}

void criu_core_log_to(int fd, int level) { criu::log::open(fd, level); }

int criu_core_log_is_stderr(void) { return criu::log::is_stderr(); }

void criu_core_log_listen(void (*listener)(int level, const char* line, void* context), void* context) {
  criu::log::listen(listener, context);
}

int criu_core_dump(const criu_core_options* options, criu_core_error** error) {
  const int result = done(error, [&] { criu::dump(ready(options, criu::dump_command)); });
  if (result != 0) {
    LOG_ERROR("Dumping FAILED.");
  }
  return result;
}

int criu_core_pre_dump(const criu_core_options* options, criu_core_error** error) {
  const int result = done(error, [&] { criu::pre_dump(ready(options, criu::pre_dump_command)); });
  if (result != 0) {
    LOG_ERROR("Pre-dumping FAILED.");
  }
  return result;
}

pid_t criu_core_restore(const criu_core_options* options, criu_core_error** error) {
  const auto root = guarded<pid_t>(error, -1, [&] { return criu::restore(ready(options, criu::restore_command)); });
  if (root < 0) {
    LOG_ERROR("Restoring FAILED.");
  }
  return root;
}

int criu_core_check(const criu_core_options* options, void (*say)(const char* line, void* context), void* context,
                    criu_core_error** error) {
  const auto tell = [&](const std::string& line) {
    if (say != nullptr) {
      say(line.c_str(), context);
    }
  };
  return guarded(error, -1, [&] { return criu::check(ready(options, criu::check_command), tell) ? 1 : 0; });
}

int criu_core_feature(const char* name) {
  return guarded(nullptr, -1, [&] {
    const auto* feature = criu::kernel::find_feature(name);
    return feature == nullptr ? -1 : feature->supported() ? 1 : 0;
  });
}

const char* criu_core_feature_at(size_t index) {
  const auto features = criu::kernel::features();
  return index < features.size() ? features[index].name : nullptr;
}

int criu_core_serve(const criu_core_options* options, int fd, criu_core_error** error) {
  return guarded(error, -1, [&] { return criu::rpc::serve(criu::rpc::Channel(base::Fd(fd)), options->options, true); });
}

int criu_core_service(const criu_core_options* options, criu_core_error** error) {
  return done(error, [&] { criu::rpc::run_service(options->options); });
}

// SPDX-License-Identifier: LGPL-2.1-only
#include "action_scripts.hpp"

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "log.hpp"

namespace criu {

namespace {

bool can_veto(Event event) {
  return event != Event::network_unlock && event != Event::pre_resume && event != Event::post_resume;
}

// This process's environment and what a script is told.
class Environment {
 public:
  Environment(Event event, const ScriptContext& context) {
    for (char** variable = environ; *variable != nullptr; ++variable) {
      if (std::strncmp(*variable, "CRTOOLS_", 8) != 0) {
        entries_.push_back(*variable);
      }
    }
    own_.push_back(std::string("CRTOOLS_SCRIPT_ACTION=") + event_name(event));
    if (context.images_fd >= 0) {
      own_.push_back(fmt::format("CRTOOLS_IMAGE_DIR=/proc/{}/fd/{}", ::getpid(), context.images_fd));
    }
    if (context.root != 0) {
      own_.push_back(fmt::format("CRTOOLS_INIT_PID={}", context.root));
    }
    for (auto& entry : own_) {
      entries_.push_back(entry.data());
    }
    entries_.push_back(nullptr);
  }
  char** data() { return entries_.data(); }

 private:
  std::vector<std::string> own_;
  std::vector<char*> entries_;
};

// stdin closed, both outputs in the log, no other descriptor of ours.
class Actions {
 public:
  explicit Actions(const std::string& directory) {
    ::posix_spawn_file_actions_init(&actions_);
    ::posix_spawn_file_actions_adddup2(&actions_, log::descriptor(), STDOUT_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions_, log::descriptor(), STDERR_FILENO);
    ::posix_spawn_file_actions_addclose(&actions_, STDIN_FILENO);
    ::posix_spawn_file_actions_addclosefrom_np(&actions_, STDERR_FILENO + 1);
    ::posix_spawn_file_actions_addchdir_np(&actions_, directory.c_str());
    // A command line ignores SIGPIPE for its own good; a script expects it to work.
    sigset_t defaults;
    ::sigemptyset(&defaults);
    ::sigaddset(&defaults, SIGPIPE);
    ::posix_spawnattr_init(&attributes_);
    ::posix_spawnattr_setsigdefault(&attributes_, &defaults);
    ::posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGDEF);
  }
  Actions(const Actions&) = delete;
  Actions& operator=(const Actions&) = delete;
  ~Actions() {
    ::posix_spawn_file_actions_destroy(&actions_);
    ::posix_spawnattr_destroy(&attributes_);
  }
  const posix_spawn_file_actions_t* files() const { return &actions_; }
  const posix_spawnattr_t* attributes() const { return &attributes_; }

 private:
  posix_spawn_file_actions_t actions_;
  posix_spawnattr_t attributes_;
};

bool run(const std::string& path, const Actions& actions, Environment& environment) {
  std::string name = path;
  char* const arguments[] = {name.data(), nullptr};
  pid_t pid = 0;
  if (const int error =
          ::posix_spawnp(&pid, path.c_str(), actions.files(), actions.attributes(), arguments, environment.data())) {
    LOG_ERROR("can't run script {}: {}", path, std::strerror(error));
    return false;
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) {
      LOG_ERROR("can't wait for script {}: {}", path, std::strerror(errno));
      return false;
    }
  }
  if (status == 0) {
    return true;
  }
  if (WIFEXITED(status)) {
    LOG_ERROR("exited, status={}", WEXITSTATUS(status));
  } else {
    LOG_ERROR("killed by signal {}: {}", WTERMSIG(status), ::strsignal(WTERMSIG(status)));
  }
  LOG_ERROR("Script {} exited with -1", path);
  return false;
}

}  // namespace

namespace {

void tell(EventListener& listener, Event event, const ScriptContext& context) {
  try {
    listener.tell(event, context);
  } catch (const base::Error& error) {
    LOG_ERROR("{}", error.what());
    if (can_veto(event)) {
      throw ScriptFailed(event, error.operation(), event_name(event));
    }
  }
}

}  // namespace

const char* event_name(Event event) {
  switch (event) {
    case Event::pre_stream:
      return "pre-stream";
    case Event::pre_dump:
      return "pre-dump";
    case Event::network_lock:
      return "network-lock";
    case Event::post_dump:
      return "post-dump";
    case Event::pre_restore:
      return "pre-restore";
    case Event::setup_namespaces:
      return "setup-namespaces";
    case Event::post_setup_namespaces:
      return "post-setup-namespaces";
    case Event::post_restore:
      return "post-restore";
    case Event::network_unlock:
      return "network-unlock";
    case Event::pre_resume:
      return "pre-resume";
    case Event::post_resume:
      return "post-resume";
    case Event::status_ready:
      return "status-ready";
  }
  return "";
}

void run_scripts(const Options& options, Event event, const ScriptContext& context) {
  if (options.listener != nullptr) {
    tell(*options.listener, event, context);
  }
  if (options.action_scripts.empty()) {
    return;
  }
  LOG_DEBUG("Running {} scripts", event_name(event));
  const Actions actions(work_dir(options));
  Environment environment(event, context);
  std::string failed;
  for (auto script = options.action_scripts.rbegin(); script != options.action_scripts.rend(); ++script) {
    if (!run(*script, actions, environment)) {
      failed += (failed.empty() ? "" : ", ") + *script;
    }
  }
  if (failed.empty()) {
    return;
  }
  LOG_ERROR("One of more action scripts failed");
  if (can_veto(event)) {
    throw ScriptFailed(
        event, event == Event::pre_dump ? "Pre dump script failed" : std::string(event_name(event)) + " script failed",
        failed);
  }
}

}  // namespace criu

// SPDX-License-Identifier: LGPL-2.1-only
#include "rpc/worker.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>

#include "action_scripts.hpp"
#include "base/error.hpp"
#include "check.hpp"
#include "dump.hpp"
#include "kernel/features.hpp"
#include "kernel/procfs.hpp"
#include "log.hpp"
#include "options_table.hpp"
#include "pre_dump.hpp"
#include "restore.hpp"
#include "rpc/request_options.hpp"
#include "session.hpp"

namespace criu::rpc {

using base::check;
using base::Error;
using images::criu_req;
using images::criu_resp;

namespace {

constexpr int failed_work = 1, failed = 255;
// Clients have buffers of fixed sizes.
constexpr std::size_t longest_message = 1023;

// A request that asks for what makes no sense, or is not there.
class BadRequest : public Error {
 public:
  using Error::Error;
  explicit BadRequest(const Error& error) : Error(error) {}
};

// Asks the client at each stage, where scripts would be run.
class Notifier : public EventListener {
 public:
  explicit Notifier(Channel& channel) : channel_(channel) {}

  void tell(Event event, const ScriptContext& context) override {
    const bool with_pid = event == Event::setup_namespaces || event == Event::post_restore;
    ask(event_name(event), with_pid ? context.root : 0);
  }
  std::vector<std::string> external() override {
    const auto answer = ask("query-ext-files", 0);
    return {answer.opts().external().begin(), answer.opts().external().end()};
  }
  bool take_terminal(int master) override {
    try {
      ask("orphan-pts-master", 0, master);
      return true;
    } catch (const Error& error) {
      if (error.code() != 0) {
        throw;
      }
      return false;  // it said no
    }
  }

 private:
  criu_req ask(const char* script, pid_t pid, int fd = -1) {
    criu_resp question;
    question.set_type(images::NOTIFY);
    question.set_success(true);
    question.mutable_notify()->set_script(script);
    if (pid != 0) {
      question.mutable_notify()->set_pid(pid);
    }
    channel_.send(question, fd);
    auto answer = channel_.receive();
    if (answer.type() != images::NOTIFY || !answer.notify_success()) {
      throw Error("RPC client reported script error", script, 0);
    }
    return answer;
  }

  Channel& channel_;
};

// In a process of its own, since some probes change who asks, and a request its directory and log. Whether it said yes;
// `complaint` becomes the first error of its log.
bool in_child(const std::function<bool()>& work, std::string* complaint = nullptr) {
  int ends[2];
  check(::pipe2(ends, O_CLOEXEC), "make a pipe");
  const base::Fd said(ends[0]);
  base::Fd say(ends[1]);
  const auto pid = check(::fork(), "fork");
  if (pid == 0) {
    bool good = false;
    try {
      good = work();
    } catch (const std::exception& error) {
      LOG_ERROR("{}", error.what());
    }
    const auto text = log::first_error().substr(0, longest_message);
    [[maybe_unused]] const auto written = ::write(say.get(), text.data(), text.size());  // less than a pipe holds
    ::_exit(good ? 0 : 1);
  }
  say.reset();
  std::string text(longest_message, '\0');
  const auto size = ::read(said.get(), text.data(), text.size());
  if (complaint != nullptr) {
    complaint->assign(text, 0, static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

class Worker {
 public:
  Worker(Channel& channel, const Options& base, bool inherited)
      : channel_(channel), base_(base), origin_{channel.peer(), inherited} {}

  int run() {
    for (;;) {
      const auto request = channel_.receive();
      if (request.keep_open() && !stays_open(request.type())) {
        LOG_ERROR("RPC error: keep_open makes no sense with a request of type {}", request.type());
        return failed;
      }
      log::forget_first_error();
      const auto status = answer(request);
      in_series_ = request.type() == images::PRE_DUMP;
      if (status != 0 || !(request.keep_open() || in_series_)) {
        return status;
      }
    }
  }

 private:
  static bool stays_open(images::criu_req_type type) {
    return type == images::PAGE_SERVER || type == images::PAGE_SERVER_CHLD || type == images::CPUINFO_DUMP ||
           type == images::CPUINFO_CHECK || type == images::FEATURE_CHECK || type == images::VERSION;
  }

  int answer(const criu_req& request) {
    criu_resp response;
    response.set_type(request.type());
    int status = failed;
    try {
      status = dispatch(request, response);
    } catch (const BadRequest& error) {
      LOG_ERROR("{}", error.what());
      response.set_cr_errno(EBADRQC);
    } catch (const Error& error) {
      LOG_ERROR("{}", error.what());
      status = request.type() == images::DUMP || request.type() == images::RESTORE ? failed_work : failed;
      note_errno(request.type(), error, response);
    }
    response.set_success(status == 0);
    if (status != 0 && !response.has_cr_errmsg() && !log::first_error().empty()) {
      response.set_cr_errmsg(log::first_error().substr(0, longest_message));
    }
    if (!client_gone_) {
      channel_.send(response);
    }
    return status == 0 && request.type() == images::RESTORE ? become(request) : status;
  }

  int dispatch(const criu_req& request, criu_resp& response) {
    if (in_series_ && request.type() != images::PRE_DUMP && request.type() != images::DUMP) {
      response.set_type(images::EMPTY);
      throw Error("RPC error: Bad req seq", std::to_string(request.type()), 0,
                  "after a pre-dump comes another, or a dump");
    }
    switch (request.type()) {
      case images::DUMP:
        response.mutable_dump()->set_restored(false);
        return dump(request);
      case images::RESTORE:
        response.mutable_restore()->set_pid(-1);
        return restore(request, response);
      case images::CHECK:
        return look_at_kernel(request);
      case images::FEATURE_CHECK:
        return look_at_features(request, response);
      case images::VERSION:
        response.mutable_version()->set_major_number(4);
        response.mutable_version()->set_minor_number(2);
        return 0;
      case images::WAIT_PID:
        return wait_for(request, response);
      case images::PRE_DUMP:
      case images::SINGLE_PRE_DUMP:
        return pre_dump(request, response);
      case images::PAGE_SERVER:
      case images::PAGE_SERVER_CHLD:
        response.set_type(images::PAGE_SERVER);
        throw BadRequest("not supported by this version yet", "page-server", 0);
      case images::CPUINFO_DUMP:
      case images::CPUINFO_CHECK:
        throw BadRequest("not supported by this version yet", "cpuinfo", 0);
      default:
        response.set_type(images::EMPTY);
        throw Error("RPC error: Invalid req", std::to_string(request.type()), 0);
    }
  }

  // Everything that a request needs before the work: its options, directories, log, rights.
  RequestOptions prepare(const criu_req& request, Command command) {
    if (!request.has_opts()) {
      throw BadRequest("RPC error: no options", "criu_opts", 0);
    }
    try {
      auto wanted = read_options(base_, request.opts(), origin_, command);
      wanted.options.rpc_socket = channel_.inode();
      if (request.opts().notify_scripts()) {
        wanted.options.listener = std::make_shared<Notifier>(channel_);
      }
      if (wanted.options.images_dir.empty()) {
        throw Error("Neither images_dir_fd nor images_dir was passed by RPC client.", {}, 0);
      }
      start_session(wanted.options, command);
      check_privileges(wanted.options);
      return wanted;
    } catch (const Error& error) {
      throw BadRequest(error);
    }
  }

  static void note_errno(images::criu_req_type type, const Error& error, criu_resp& response) {
    if ((type == images::DUMP && error.code() == ESRCH) || (type == images::RESTORE && error.code() == EEXIST)) {
      response.set_cr_errno(error.code());
    }
  }

  int dump(const criu_req& request) {
    const auto wanted = prepare(request, dump_command);
    const auto& options = wanted.options;
    if (options.tree <= 0 || (::kill(options.tree, 0) != 0 && errno == ESRCH)) {
      throw Error("dump", fmt::format("task {}", options.tree), ESRCH);
    }
    const bool of_itself = procfs::is_within(origin_.client, options.tree);
    if (of_itself && options.listener != nullptr) {
      throw BadRequest("cannot dump", "the client itself, with notify_scripts", 0,
                       "it stands still when it would have to answer");
    }
    criu::dump(options);
    client_gone_ = of_itself && options.final_state == FinalState::killed;
    return 0;
  }

  int pre_dump(const criu_req& request, criu_resp& response) {
    std::string complaint;
    const auto work = [&] {
      criu::pre_dump(prepare(request, pre_dump_command).options);
      return true;
    };
    const bool good = in_child(work, &complaint);
    if (!complaint.empty()) {
      response.set_cr_errmsg(complaint);
    }
    return good ? 0 : failed_work;
  }

  int restore(const criu_req& request, criu_resp& response) {
    const auto wanted = prepare(request, restore_command);
    response.mutable_restore()->set_pid(criu::restore(wanted.options));
    return 0;
  }

  // What exec_cmd asks for, the parent of the restored tree from then on. Comes back only if that is not to be had.
  int become(const criu_req& request) {
    if (request.opts().exec_cmd_size() == 0) {
      return 0;
    }
    std::vector<std::string> words(request.opts().exec_cmd().begin(), request.opts().exec_cmd().end());
    std::vector<char*> arguments;
    arguments.reserve(words.size() + 1);
    for (auto& word : words) {
      arguments.push_back(word.data());
    }
    arguments.push_back(nullptr);
    channel_.close();
    ::dup2(log::descriptor(), STDOUT_FILENO);
    ::dup2(log::descriptor(), STDERR_FILENO);
    ::signal(SIGPIPE, SIG_DFL);
    ::execvp(arguments[0], arguments.data());
    LOG_ERROR("can't execute {}: {}", words[0], std::strerror(errno));
    return failed;
  }

  int look_at_kernel(const criu_req& request) {
    auto options = base_;
    std::optional<RequestOptions> wanted;
    if (request.has_opts() && request.opts().has_log_file() && !request.opts().log_to_stderr()) {
      wanted.emplace(prepare(request, check_command));
      options = wanted->options;
    }
    options.tree = 0;
    options.check_feature.clear();
    return in_child([&] { return criu::check(options, [](const std::string& line) { LOG_INFO("{}", line); }); })
               ? 0
               : failed;
  }

  // Whether the kernel has it and this version makes use of it.
  static bool has(const char* option, const char* feature) {
    return (option == nullptr || find_option(option)->apply != nullptr) &&
           in_child([feature] { return kernel::find_feature(feature)->supported(); });
  }

  static int look_at_features(const criu_req& request, criu_resp& response) {
    if (!request.has_features()) {
      throw BadRequest("RPC error: no features to look for", "criu_features", 0);
    }
    const auto& asked = request.features();
    auto& found = *response.mutable_features();
    found.set_mem_track(asked.mem_track());  // all memory is copied each time: nothing of the kernel is needed
    found.set_lazy_pages(asked.lazy_pages() && has("lazy-pages", "uffd-noncoop"));
    found.set_pidfd_store(asked.pidfd_store() && has("track-mem", "pidfd_store"));
    return 0;
  }

  static int wait_for(const criu_req& request, criu_resp& response) {
    int status = 0;
    pid_t ended = 0;
    while ((ended = ::waitpid(static_cast<pid_t>(request.pid()), &status, 0)) < 0 && errno == EINTR) {
    }
    check(ended, "wait for", fmt::format("process {}", request.pid()));
    response.set_status(status);
    return 0;
  }

  Channel& channel_;
  const Options& base_;
  Origin origin_;
  bool in_series_ = false;    // of pre-dumps
  bool client_gone_ = false;  // it was in the tree that it had dumped; the restored one finds its answer there
};

// Some clients start the worker without them, and the next descriptor that is opened is not to be taken for one.
void fill_standard_descriptors() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) < 0) {
      ::open("/dev/null", O_RDWR);  // the lowest that is free: this one
    }
  }
}

}  // namespace

int serve(Channel channel, const Options& base, bool inherited) {
  fill_standard_descriptors();
  try {
    return Worker(channel, base, inherited).run();
  } catch (const Error& error) {
    LOG_ERROR("{}", error.what());
    return failed;
  }
}

}  // namespace criu::rpc

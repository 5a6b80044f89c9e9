// SPDX-License-Identifier: GPL-2.0-only
#include "scene.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>

#include "restore_context.hpp"

namespace scene {

namespace {

// Memory that all processes of a scene share.
struct Board {
  pid_t pids[8];
  char failure[512];
  pthread_barrier_t barrier;
};

Board* make_board() {
  void* at = ::mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) {
    throw std::runtime_error("no memory");
  }
  return static_cast<Board*>(at);
}

std::string slurp(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void wait_stopped(pid_t pid, const Board& board) {
  int status = 0;
  ::waitpid(pid, &status, WUNTRACED);
  if (!WIFSTOPPED(status)) {
    throw std::runtime_error(std::string("a process of the scene ended early: ") + board.failure);
  }
}

template <typename Step>
void guarded(Board& board, Step step) {
  try {
    step();
  } catch (const Failure& failure) {
    std::strncpy(board.failure, failure.text.c_str(), sizeof board.failure - 1);
    ::_exit(1);
  } catch (const std::exception& error) {
    std::strncpy(board.failure, error.what(), sizeof board.failure - 1);
    ::_exit(1);
  }
}

[[noreturn]] void act(const std::vector<Actor>& actors, std::size_t index, Board& board) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  board.pids[index] = ::getpid();
  guarded(board, [&] {
    actors[index].open();
    if (index + 1 < actors.size()) {
      const auto child = ::fork();
      if (child == 0) {
        act(actors, index + 1, board);
      }
      wait_stopped(child, board);
    }
  });
  ::raise(SIGSTOP);
  ::_exit(0);
}

void read_files(const criu::image::Directory& images, criu::Checkpoint& checkpoint) {
  auto reader = images.open(criu::image::type::files);
  criu::images::file_entry entry;
  while (reader && reader->next(entry)) {
    checkpoint.files[{entry.type(), entry.id()}] = entry;
  }
  auto remaps = images.open(criu::image::type::remap_fpath);
  criu::images::remap_file_path_entry remap;
  while (remaps && remaps->next(remap)) {
    checkpoint.remaps.push_back(remap);
  }
}

}  // namespace

void require(bool holds, const std::string& text) {
  if (!holds) {
    throw Failure{text + (errno != 0 ? std::string(": ") + std::strerror(errno) : "")};
  }
}

TempDir::TempDir() {
  char name[] = "/tmp/criu-files-XXXXXX";
  path_ = ::mkdtemp(name);
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::vector<std::string> TempDir::names(const std::string& below) const {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(path(below))) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

Look look(pid_t pid) {
  static const std::regex changing(
      R"(((^|\n)ino:.*|(^|\n)mnt_id:.*|(^|\n)eventfd-id:.*|(^|\n)it_value:.*| ino:\S+ sdev:\S+|\[\d+\]|/#\d+|\.cr\.[0-9a-f]+\.ghost))");
  Look result;
  const auto base = "/proc/" + std::to_string(pid);
  for (const auto& entry : std::filesystem::directory_iterator(base + "/fdinfo")) {
    const std::string number = entry.path().filename();
    auto link = std::filesystem::read_symlink(std::string(base).append("/fd/").append(number)).string();
    auto text = link + "\n" + slurp(entry.path());
    text = std::regex_replace(text, changing, "");
    // The targets of an epoll descriptor come in the order of addresses in the kernel.
    std::vector<std::string> lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) {
      lines.push_back(line);
    }
    std::sort(lines.begin() + 1, lines.end());
    text.clear();
    for (const auto& line : lines) {
      text += line + "\n";
    }
    result[std::stoi(number)] = text;
  }
  return result;
}

Scene::Scene(std::vector<Actor> actors) : actors_(std::move(actors)) {
  auto* board = make_board();
  const auto first = ::fork();
  if (first == 0) {
    ::syscall(SYS_close_range, 0, ~0U, 0);
    act(actors_, 0, *board);
  }
  wait_stopped(first, *board);
  pids_.assign(board->pids, board->pids + actors_.size());
  ::munmap(board, sizeof *board);
  for (const auto pid : pids_) {
    looks_.push_back(look(pid));
  }
}

Scene::~Scene() { kill(); }

void Scene::kill() {
  if (pids_.empty()) {
    return;
  }
  for (const auto pid : pids_) {
    ::kill(pid, SIGKILL);
  }
  ::waitpid(pids_.front(), nullptr, 0);
  pids_.clear();
}

std::vector<std::string> Scene::dump() {
  directory_ = std::make_unique<criu::image::Directory>(images.path());
  context_.reset(new criu::DumpContext{.options = options, .images = *directory_, .obstacles = {}});
  collector_ = std::make_unique<criu::files::Collector>(*context_);
  for (std::size_t i = 0; i < pids_.size(); ++i) {
    collector_->collect_table(pids_[i], static_cast<std::uint32_t>(i + 2));
  }
  collector_->finish();
  std::vector<std::string> texts;
  for (const auto& obstacle : context_->obstacles) {
    texts.push_back(obstacle.what());
  }
  return texts;
}

void Scene::restore() {
  collector_->keep_links();
  kill();
  criu::Checkpoint checkpoint;
  read_files(*directory_, checkpoint);
  int highest = 2;
  for (std::size_t i = 0; i < actors_.size(); ++i) {
    auto& task = checkpoint.add_task();
    task.core.mutable_tc()->set_task_state(1);
    auto reader = directory_->open(criu::image::type::fdinfo, i + 2);
    criu::images::fdinfo_entry entry;
    while (reader && reader->next(entry)) {
      task.fds.push_back(entry);
      highest = std::max(highest, static_cast<int>(entry.fd()));
    }
  }
  criu::RestoreContext context{.options = options,
                               .images = criu::image::Directory(images.path()),
                               .checkpoint = checkpoint,
                               .files = criu::files::Plan(checkpoint)};
  context.first_internal_fd = highest + 1;
  const auto slots_size = std::max<std::size_t>(1, context.files.slot_count()) * sizeof(criu::files::Slot);
  const base::Mapping slots(::mmap(nullptr, slots_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0),
                            slots_size);
  context.files.use(reinterpret_cast<criu::files::Slot*>(slots.data()));
  context.shared_objects.restore(context);
  criu::files::prepare(context);
  if (prepared) {
    prepared(context);
  }

  auto* board = make_board();
  pthread_barrierattr_t attributes;
  ::pthread_barrierattr_init(&attributes);
  ::pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  ::pthread_barrier_init(&board->barrier, &attributes, static_cast<unsigned>(actors_.size()));
  std::vector<pid_t> born;
  for (std::size_t i = 0; i < actors_.size(); ++i) {
    const auto pid = ::fork();
    if (pid != 0) {
      born.push_back(pid);
      continue;
    }
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    guarded(*board, [&] {
      auto& task = *checkpoint.tasks[i];
      task.entry.set_pid(static_cast<std::uint32_t>(::getpid()));
      ::syscall(SYS_close_range, 0, context.first_internal_fd - 1, 0);
      context.files.make(context, task);
      ::pthread_barrier_wait(&board->barrier);
      context.files.collect(context, task);
      context.files.connect(context, task);
      ::pthread_barrier_wait(&board->barrier);
      ::syscall(SYS_close_range, context.first_internal_fd, ~0U, 0);
      ::raise(SIGSTOP);
      errno = 0;
      actors_[i].check();
    });
    ::_exit(0);
  }
  std::vector<Look> after;
  for (const auto pid : born) {
    wait_stopped(pid, *board);
    after.push_back(look(pid));
  }
  if (restored) {
    restored(context);
  }
  for (std::size_t i = 0; i < born.size(); ++i) {
    for (const auto& [fd, text] : looks_[i]) {
      if (looks_different.contains(fd)) {
        continue;
      }
      INFO("fd " << fd << " of process " << i);
      CHECK(after[i][fd] == text);
    }
    CHECK(after[i].size() == looks_[i].size());
    ::kill(born[i], SIGCONT);
    int status = 0;
    ::waitpid(born[i], &status, 0);
    INFO(board->failure);
    CHECK(status == 0);
  }
  ::munmap(board, sizeof *board);
}

}  // namespace scene

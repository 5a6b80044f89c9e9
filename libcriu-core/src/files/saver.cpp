// SPDX-License-Identifier: LGPL-2.1-only
#include "files/saver.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.hpp"
#include "files/tty_survey.hpp"
#include "kernel/procfs.hpp"

namespace criu::files {

Saver::Saver(DumpContext& dump)
    : dump_(dump),
      watched_(dump),
      shared_objects_(dump),
      files_(dump.images.create(image::type::files)),
      terminals_(std::make_unique<TtySurvey>()) {}

Saver::~Saver() = default;

image::Writer& Saver::image(const image::Type& type) {
  const auto found = images_.find(type.magic);
  return found != images_.end() ? found->second : images_.emplace(type.magic, dump_.images.create(type)).first->second;
}

std::uint32_t Saver::refer_in_flight(base::Fd fd, const std::string& referrer) {
  const auto number = std::to_string(fd.get());
  Description description{::getpid(), fd.get(), procfs::Task(::getpid()).link(("fd/" + number).c_str()),
                          {},         {},       fd.get()};
  description.referrer = referrer + " (" + description.link + ")";
  description.info = kernel::parse_fdinfo(
      procfs::read_file(AT_FDCWD, ("/proc/self/fdinfo/" + number).c_str(), "fdinfo of " + description.referrer));
  base::check(::fstat(fd.get(), &description.stat), "stat", description.referrer);
  const auto fresh = new_file_id();
  registry_.table(description.pid);  // an epoll descriptor looks there
  const auto id = registry_.identify({description.pid, fd.get()}, description.info, fresh);
  if (id == fresh) {
    kept_.push_back(std::move(fd));
    in_flight_.emplace_back(id, std::move(description));
  } else {
    give_back(fresh);
  }
  return id;
}

sockets::Survey& Saver::sockets() {
  if (sockets_ == nullptr) {
    sockets_ = std::make_unique<sockets::Survey>();
  }
  return *sockets_;
}

Saver::Watched Saver::watched(pid_t pid, int epoll, const kernel::EpollTarget& target, unsigned nth) const {
  const auto* table = registry_.find_table(pid);
  const auto there = table->by_fd.find(target.fd);
  if (there != table->by_fd.end() && Registry::is_watched({pid, epoll}, target, nth)) {
    return {there->second, target.fd};
  }
  const auto id = registry_.watched({pid, epoll}, target, nth);
  const auto elsewhere = table->by_id.find(id);
  return {id, elsewhere == table->by_id.end() ? -1 : elsewhere->second};
}

void Saver::refuse_autofs() {
  std::erase_if(readers_, [this](const auto& reader) { return registry_.has_writer(reader.first); });
  if (readers_.empty()) {
    return;
  }
  for (const auto& mount : watched_.mounts().all()) {
    const auto found = std::find_if(readers_.begin(), readers_.end(), [&](const auto& reader) {
      return mount.autofs_pipe != 0 && reader.first == mount.autofs_pipe;
    });
    if (found != readers_.end()) {
      throw base::Error("not supported by this version",
                        fmt::format("fd {} of task {} is what the automounter of {} reads", found->second.fd,
                                    found->second.pid, mount.point),
                        0);
    }
  }
}

void Saver::finish() {
  locks_.save(*this);
  files_.finish();
  for (auto& [magic, writer] : images_) {
    writer.finish();
  }
  shared_objects_.finish();
}

}  // namespace criu::files

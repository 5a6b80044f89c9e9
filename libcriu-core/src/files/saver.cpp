// SPDX-License-Identifier: LGPL-2.1-only
#include "files/saver.hpp"

namespace criu::files {

image::Writer& Saver::image(const image::Type& type) {
  const auto found = images_.find(type.magic);
  return found != images_.end() ? found->second : images_.emplace(type.magic, dump_.images.create(type)).first->second;
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

void Saver::finish() {
  files_.finish();
  for (auto& [magic, writer] : images_) {
    writer.finish();
  }
  shared_objects_.finish();
}

}  // namespace criu::files

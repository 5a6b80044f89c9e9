// SPDX-License-Identifier: LGPL-2.1-only
// What the kinds use to save themselves: ids, images that several write into, and what is known of other files.
#pragma once

#include <fdinfo.pb.h>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "dump_context.hpp"
#include "files/io_uring.hpp"
#include "files/kind.hpp"
#include "files/locks.hpp"
#include "files/registry.hpp"
#include "files/removed.hpp"
#include "files/watched.hpp"
#include "image/stream.hpp"
#include "memory/shared.hpp"
#include "sockets/survey.hpp"

namespace criu::files {

class TtySurvey;

class Saver {
 public:
  explicit Saver(DumpContext& dump);
  ~Saver();
  Saver(const Saver&) = delete;
  Saver& operator=(const Saver&) = delete;

  DumpContext& dump() { return dump_; }
  std::uint32_t new_file_id() { return ++last_file_id_; }
  // The id that was given out last was not needed.
  void give_back(std::uint32_t id) { last_file_id_ -= id == last_file_id_ ? 1 : 0; }
  // An entry of files.img.
  void put(const images::file_entry& entry) { files_.write(entry); }
  // An image that is written bit by bit.
  image::Writer& image(const image::Type& type);
  // Whether the queue of this pipe is still to be saved; it counts as saved from then on.
  bool first_queue(const image::Type& type, std::uint32_t pipe_id) {
    return queues_.insert({type.magic, pipe_id}).second;
  }

  // An end of a pipe that is read, by a descriptor of a task. If nobody in the tree writes to it, that may be the
  // kernel.
  void note_reader(std::uint64_t ino, Ref reader) { readers_.emplace_back(ino, reader); }

  // The id of a file that waits in a queue, of which this is a copy. `referrer` says where, for messages.
  std::uint32_t refer_in_flight(base::Fd fd, const std::string& referrer);
  // Those of them that were met for the first time and are still to be saved, under their ids.
  std::deque<std::pair<std::uint32_t, Description>> take_in_flight() { return std::exchange(in_flight_, {}); }

  // What is known of sockets; asked for only when there is one.
  sockets::Survey& sockets();

  // Those that were met so far.
  std::vector<RingFile>& rings() { return rings_; }
  // What is known of terminals.
  TtySurvey& terminals() { return *terminals_; }

  Registry& registry() { return registry_; }
  Removed& removed() { return removed_; }
  WatchedInodes& inodes() { return watched_; }
  LockSaver& locks() { return locks_; }
  memory::ObjectSaver& shared_objects() { return shared_objects_; }

  // What an epoll descriptor watches: the nth of those that were added under that number.
  struct Watched {
    std::uint32_t file_id = 0;  // 0: nothing that is known
    int fd = -1;                // its number in the table of the epoll descriptor; -1: not there any more
  };
  Watched watched(pid_t pid, int epoll, const kernel::EpollTarget& target, unsigned nth) const;

  // A pipe by which the kernel asks an automounter is an Error.
  void refuse_autofs();

  // Seals all images.
  void finish();

 private:
  DumpContext& dump_;
  Registry registry_;
  Removed removed_;
  WatchedInodes watched_;
  LockSaver locks_;
  memory::ObjectSaver shared_objects_;
  image::Writer files_;
  std::map<std::uint32_t, image::Writer> images_;  // by magic
  std::set<std::pair<std::uint32_t, std::uint32_t>> queues_;
  std::deque<std::pair<std::uint32_t, Description>> in_flight_;
  std::vector<base::Fd> kept_;  // the registry knows what is in flight by these
  std::unique_ptr<sockets::Survey> sockets_;
  std::vector<RingFile> rings_;
  std::unique_ptr<TtySurvey> terminals_;
  std::uint32_t last_file_id_ = 0;
  std::vector<std::pair<std::uint64_t, Ref>> readers_;
};

}  // namespace criu::files

// SPDX-License-Identifier: GPL-2.0-only
// A JVM at work: a thread pool that computes, an allocation rate that keeps the collector busy, an open file.
import java.io.File;
import java.io.FileWriter;
import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

// Files through java.io: the channels of java.nio keep a UNIX socket open, which is not what this test is about.
public class Work {
  private static String dir;

  private static void put(String name, String text) throws IOException {
    File made = new File(dir, name + ".new");
    try (FileWriter writer = new FileWriter(made)) {
      writer.write(text);
    }
    if (!made.renameTo(new File(dir, name))) {
      throw new IOException("rename " + name);
    }
  }

  private static long sumBelow(int n) {
    List<Integer> numbers = new ArrayList<>();
    for (int i = 0; i < n; i++) {
      numbers.add(i);
    }
    return numbers.stream().mapToLong(Integer::longValue).sum();
  }

  private static String step(ExecutorService pool, int number) throws Exception {
    Map<Integer, Future<Long>> sums = new HashMap<>();
    for (int i = 0; i < 8; i++) {
      int n = number % 1000 + i;
      Callable<Long> job = () -> sumBelow(n);
      sums.put(n, pool.submit(job));
    }
    for (Map.Entry<Integer, Future<Long>> sum : sums.entrySet()) {
      long n = sum.getKey();
      if (sum.getValue().get() != n * (n - 1) / 2) {
        return "BAD sum below " + n;
      }
    }
    return "ok";
  }

  public static void main(String[] arguments) throws Exception {
    dir = arguments[0];
    ExecutorService pool = Executors.newFixedThreadPool(4);
    File go = new File(dir, "go");
    for (int number = 0; ; number++) {
      String found = step(pool, number);
      if (number == 100) {
        put("ready", "ready");
      }
      if (!found.equals("ok") || go.exists()) {
        go.delete();
        put("report", "step " + number + " " + found + "\n");
      }
    }
  }
}

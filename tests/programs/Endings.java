import java.lang.ref.Cleaner;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.locks.ReentrantLock;

/**
 * How a JVM ends, one mode for each way. It says `ready (pid: N)` and then a line for each thing
 * that happens, so that a test can tell which parts of a shutdown ran.
 *
 * Usage: java Endings MODE [EXIT STATUS]
 */
public class Endings {
    static final Object FIRST = new Object();
    static final Object SECOND = new Object();
    static Watched kept;

    public static void main(String[] words) throws Exception {
        String mode = words[0];
        int status = words.length > 1 ? Integer.parseInt(words[1]) : 0;
        switch (mode) {
            // Ends only when a signal comes; the main thread is the last user thread.
            case "wait" -> {
                hook("one", () -> say("hook one ran"));
                hook("two", () -> say("hook two ran"));
                ready();
                forever();
            }
            case "no-hooks" -> {
                ready();
                forever();
            }
            case "exit" -> {
                hook("one", () -> say("hook one ran"));
                ready();
                System.exit(status);
            }
            case "halt" -> {
                hook("one", () -> say("hook one ran"));
                ready();
                Runtime.getRuntime().halt(status);
            }
            // The main thread fails; no other user thread is left.
            case "throw" -> {
                hook("one", () -> say("hook one ran"));
                ready();
                throw new IllegalStateException("on purpose");
            }
            // The main thread ends first, the user thread last; the daemon thread is not awaited.
            case "threads" -> threads();
            // Only daemon threads are left when main returns.
            case "daemon-only" -> {
                hook("one", () -> say("hook one ran"));
                start("helper", true, () -> {
                    nap(60_000);
                    say("daemon thread done");
                });
                ready();
            }
            // Neither hook can end unless the other one was started too, and both are awaited.
            case "two" -> {
                CountDownLatch one = new CountDownLatch(1);
                CountDownLatch two = new CountDownLatch(1);
                hook("one", () -> meet("one", one, two));
                hook("two", () -> meet("two", two, one));
                ready();
                forever();
            }
            case "deadlock" -> deadlock();
            case "deadlock-locks" -> deadlockLocks();
            // A hook that calls exit waits for the shutdown that waits for the hook.
            case "exit-in-hook" -> {
                hook("exiting-hook", () -> {
                    say("hook calls exit");
                    System.exit(status);
                });
                ready();
                forever();
            }
            // Main calls exit while it holds a lock that the hook wants.
            case "exit-with-lock" -> {
                hook("wanting-hook", () -> {
                    say("hook wants the lock");
                    synchronized (FIRST) {
                        say("hook has the lock");
                    }
                });
                ready();
                synchronized (FIRST) {
                    System.exit(status);
                }
            }
            case "hang" -> {
                hook("hanging-hook", () -> {
                    say("hook hangs");
                    forever();
                });
                ready();
                forever();
            }
            // The same, begun by the end of the last user thread.
            case "hang-at-end" -> {
                hook("hanging-hook", () -> {
                    say("hook hangs");
                    forever();
                });
                ready();
            }
            // The same, begun by exit: an old user thread looks on.
            case "hang-at-exit" -> {
                hook("hanging-hook", () -> {
                    say("hook hangs");
                    forever();
                });
                start("order-worker", false, Endings::forever);
                ready();
                System.exit(status);
            }
            // The hook cuts the shutdown off: the rest of it never happens.
            case "halt-in-hook" -> {
                hook("halting-hook", () -> {
                    say("hook halts");
                    Runtime.getRuntime().halt(status);
                });
                ready();
                forever();
            }
            // A handler of the program's own, as some launchers have: exit with another status.
            case "own-handler" -> {
                hook("one", () -> say("hook one ran"));
                sun.misc.Signal.handle(new sun.misc.Signal("TERM"), signal -> {
                    say("handler ran");
                    System.exit(status);
                });
                ready();
                forever();
            }
            // Takes SIGTERM and goes on: no shutdown begins, a user thread keeps it alive.
            case "ignoring-handler" -> {
                sun.misc.Signal.handle(new sun.misc.Signal("TERM"), signal -> say("handler ran"));
                start("order-worker", false, Endings::forever);
                ready();
            }
            case "finalizers" -> finalizers(status);
            default -> throw new IllegalArgumentException(mode);
        }
    }

    static void threads() {
        hook("one", () -> say("hook one ran"));
        CountDownLatch mainEnded = new CountDownLatch(1);
        start("helper", true, () -> {
            nap(60_000);
            say("daemon thread done");
        });
        Thread main = Thread.currentThread();
        start("worker", false, () -> {
            await(mainEnded);
            join(main);
            say("main thread ended: " + (main.getState() == Thread.State.TERMINATED));
            nap(200);
            say("user thread done");
        });
        ready();
        mainEnded.countDown();
    }

    static void meet(String name, CountDownLatch mine, CountDownLatch other) {
        mine.countDown();
        await(other);
        say("hook " + name + " met the other");
        nap(200);
        say("hook " + name + " done");
    }

    static void deadlock() {
        CyclicBarrier both = new CyclicBarrier(2);
        hook("closing-orders", () -> {
            synchronized (FIRST) {
                met(both);
                say("hook wants the other's lock");
                synchronized (SECOND) {
                    say("never");
                }
            }
        });
        hook("closing-payments", () -> {
            synchronized (SECOND) {
                met(both);
                say("hook wants the other's lock");
                synchronized (FIRST) {
                    say("never");
                }
            }
        });
        ready();
        forever();
    }

    static void deadlockLocks() {
        ReentrantLock first = new ReentrantLock();
        ReentrantLock second = new ReentrantLock();
        CyclicBarrier both = new CyclicBarrier(2);
        hook("locking-orders", () -> {
            first.lock();
            met(both);
            say("hook wants the other's lock");
            second.lock();
        });
        hook("locking-payments", () -> {
            second.lock();
            met(both);
            say("hook wants the other's lock");
            first.lock();
        });
        ready();
        forever();
    }

    /** Shows that finalizers and cleaners work here, and then that exit runs neither. */
    static void finalizers(int status) throws Exception {
        ready();
        Cleaner cleaner = Cleaner.create();
        CountDownLatch finalized = new CountDownLatch(1);
        CountDownLatch cleaned = new CountDownLatch(1);
        forget(cleaner, finalized, cleaned);
        while (finalized.getCount() > 0 || cleaned.getCount() > 0) {
            System.gc();
            nap(10);
        }
        hook("one", () -> say("hook one ran"));
        kept = new Watched("kept", new CountDownLatch(1));
        cleaner.register(kept, () -> say("cleaner of kept ran"));
        System.exit(status);
    }

    static void forget(Cleaner cleaner, CountDownLatch finalized, CountDownLatch cleaned) {
        new Watched("forgotten", finalized);
        cleaner.register(new Object(), () -> {
            say("cleaner of forgotten ran");
            cleaned.countDown();
        });
    }

    /** Says when it is finalized. */
    static final class Watched {
        final String name;
        final CountDownLatch finalized;

        Watched(String name, CountDownLatch finalized) {
            this.name = name;
            this.finalized = finalized;
        }

        @Override
        @SuppressWarnings({"deprecation", "removal"})
        protected void finalize() {
            say("finalizer of " + name + " ran");
            finalized.countDown();
        }
    }

    static void hook(String name, Runnable work) {
        Runtime.getRuntime().addShutdownHook(new Thread(work, name));
    }

    static void start(String name, boolean daemon, Runnable work) {
        Thread thread = new Thread(work, name);
        thread.setDaemon(daemon);
        thread.start();
    }

    static void ready() {
        say("ready (pid: " + ProcessHandle.current().pid() + ")");
    }

    static synchronized void say(String line) {
        System.out.println(line);
    }

    static void forever() {
        await(new CountDownLatch(1));
    }

    static void await(CountDownLatch latch) {
        try {
            latch.await();
        } catch (InterruptedException interrupted) {
            throw new IllegalStateException(interrupted);
        }
    }

    static void met(CyclicBarrier barrier) {
        try {
            barrier.await();
        } catch (Exception broken) {
            throw new IllegalStateException(broken);
        }
    }

    static void join(Thread thread) {
        try {
            thread.join();
        } catch (InterruptedException interrupted) {
            throw new IllegalStateException(interrupted);
        }
    }

    static void nap(long millis) {
        try {
            Thread.sleep(millis);
        } catch (InterruptedException interrupted) {
            throw new IllegalStateException(interrupted);
        }
    }
}

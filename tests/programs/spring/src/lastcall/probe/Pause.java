package lastcall.probe;

/** Work that takes its time. An interrupt ends it: a server that gives up interrupts its threads. */
final class Pause {
    private Pause() {}

    static void seconds(double seconds) {
        try {
            Thread.sleep(Math.round(1000 * seconds));
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException("interrupted in the middle of the work", error);
        }
    }
}

package lastcall.probe;

import java.io.IOException;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;

/** An answer of n pieces over some seconds, and a last line that is sent after the order. */
class Pieces {
    private final Till till;
    private final String key;
    private final double seconds;
    private final int count;
    private final boolean events;

    Pieces(Till till, String key, double seconds, int count, boolean events) {
        this.till = till;
        this.key = key;
        this.seconds = seconds;
        this.count = count;
        this.events = events;
    }

    long length() {
        return (long) count * line("piece 000000").length + last().length;
    }

    void writeTo(OutputStream out) throws IOException {
        out.flush(); // the headers go out at once
        for (int i = 1; i <= count; i++) {
            Pause.seconds(seconds / count);
            out.write(line(String.format("piece %06d", i)));
            out.flush();
        }
        till.order(key);
        out.write(last());
        out.flush();
    }

    private byte[] last() {
        return line(("done " + key).trim());
    }

    private byte[] line(String text) {
        return (events ? "data: " + text + "\n\n" : text + "\n").getBytes(StandardCharsets.UTF_8);
    }
}

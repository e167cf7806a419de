package lastcall.probe;

import java.io.IOException;
import java.io.InputStream;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.http.HttpStatus;
import org.springframework.http.MediaType;
import org.springframework.http.ResponseEntity;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.server.ResponseStatusException;
import org.springframework.web.servlet.mvc.method.annotation.StreamingResponseBody;

/** The paths of lastcall.drill.probe, but for its WebSocket; /health takes its time. */
@RestController
class Probe {
    private static final Logger log = LoggerFactory.getLogger(Probe.class);
    private static final String TEXT = "text/plain;charset=UTF-8";

    private final Till till;
    private final double healthSeconds;

    Probe(Till till, @Value("${health.seconds:10}") double healthSeconds) {
        this.till = till;
        this.healthSeconds = healthSeconds;
    }

    @GetMapping(path = "/", produces = TEXT)
    String root() {
        return "ok\n";
    }

    @GetMapping(path = "/health", produces = TEXT)
    String health(@RequestParam(defaultValue = "") String key, @RequestParam(required = false) Double s) {
        double seconds = s == null ? healthSeconds : s;
        log.info("/health {} begins", key);
        work(key, seconds);
        log.info("/health {} ends", key);
        return "ok\n";
    }

    @GetMapping(path = "/fast", produces = TEXT)
    String fast(@RequestParam(defaultValue = "") String key) {
        return work(key, 0);
    }

    @GetMapping(path = {"/slow", "/poll"}, produces = TEXT)
    String slow(@RequestParam(defaultValue = "") String key, @RequestParam(defaultValue = "0") double s) {
        return work(key, s);
    }

    @PostMapping(path = "/upload", produces = TEXT)
    String upload(@RequestParam(defaultValue = "") String key, InputStream body) throws IOException {
        byte[] buffer = new byte[65536];
        long taken = 0;
        for (int read; (read = body.read(buffer)) >= 0; ) {
            taken += read; // a body cut short throws: an error, never work
        }
        work(key, 0);
        return taken + "\n";
    }

    /** The usual way to stream: in a thread of the application's task executor. */
    @GetMapping("/stream")
    ResponseEntity<StreamingResponseBody> stream(
            @RequestParam(defaultValue = "") String key,
            @RequestParam(defaultValue = "0") double s,
            @RequestParam(defaultValue = "10") int n) {
        Pieces pieces = begin(key, s, n, false);
        return ResponseEntity.ok().contentType(MediaType.parseMediaType(TEXT)).body(pieces::writeTo);
    }

    @GetMapping("/length")
    ResponseEntity<Pieces> length(
            @RequestParam(defaultValue = "") String key,
            @RequestParam(defaultValue = "0") double s,
            @RequestParam(defaultValue = "10") int n) {
        Pieces pieces = begin(key, s, n, false);
        return ResponseEntity.ok()
                .contentType(MediaType.parseMediaType(TEXT))
                .contentLength(pieces.length())
                .body(pieces);
    }

    @GetMapping("/events")
    ResponseEntity<Pieces> events(
            @RequestParam(defaultValue = "") String key,
            @RequestParam(defaultValue = "0") double s,
            @RequestParam(defaultValue = "10") int n) {
        return ResponseEntity.ok().contentType(MediaType.TEXT_EVENT_STREAM).body(begin(key, s, n, true));
    }

    private String work(String key, double seconds) {
        check(key, seconds, 1);
        till.pay(key);
        Pause.seconds(seconds);
        till.order(key);
        return ("done " + key).trim() + "\n";
    }

    private Pieces begin(String key, double seconds, int count, boolean events) {
        check(key, seconds, count);
        till.pay(key);
        return new Pieces(till, key, seconds, count, events);
    }

    private static void check(String key, double seconds, int count) {
        if (!key.matches("[A-Za-z0-9._:-]{0,200}") || !(seconds >= 0 && seconds <= 3600)
                || count < 1 || count > 100000) {
            throw new ResponseStatusException(HttpStatus.BAD_REQUEST, "key, s or n makes no sense");
        }
    }
}

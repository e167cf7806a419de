// The probe application on com.sun.net.httpserver: java JavaServer.java PORT [graceful]
//
// The same paths and the same ledger as lastcall.drill.probe. Without "graceful" the JVM ends on
// SIGTERM with requests in hand; with it, a shutdown hook calls stop(10): up to ten seconds for them.

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.Executors;

public class JavaServer {
    private static FileOutputStream ledger;

    private static void note(String key, String step) throws IOException {
        if (!key.isEmpty() && ledger != null) {
            ledger.write(bytes(key + " " + step + "\n")); // opened with O_APPEND, one write a line
        }
    }

    private static void pay(String key) throws IOException {
        note(key, "begun");
        note(key, "paid");
    }

    private static void order(String key) throws IOException {
        note(key, "ordered");
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static void answer(HttpExchange exchange, int status, String text) throws IOException {
        byte[] body = bytes(text);
        exchange.getResponseHeaders().set("Content-Type", "text/plain");
        exchange.sendResponseHeaders(status, body.length);
        exchange.getResponseBody().write(body);
    }

    private static Map<String, String> parameters(HttpExchange exchange) {
        Map<String, String> found = new HashMap<>();
        String query = exchange.getRequestURI().getRawQuery();
        for (String pair : query == null ? new String[0] : query.split("&")) {
            String[] sides = pair.split("=", 2);
            found.put(sides[0], sides.length < 2 ? "" : URLDecoder.decode(sides[1], StandardCharsets.UTF_8));
        }
        return found;
    }

    private static String line(String path, String text) {
        return path.equals("/events") ? "data: " + text + "\n\n" : text + "\n";
    }

    private static void stream(HttpExchange exchange, String path, String key, double seconds, int pieces)
            throws IOException, InterruptedException {
        byte[] last = bytes(line(path, ("done " + key).strip()));
        long length = 0; // of the answer; to this server, 0 means chunked
        if (path.equals("/length")) {
            length = (long) pieces * line(path, "piece 000000").length() + last.length;
        }
        pay(key);
        exchange.getResponseHeaders().set("Content-Type", path.equals("/events") ? "text/event-stream" : "text/plain");
        exchange.sendResponseHeaders(200, length);
        OutputStream out = exchange.getResponseBody();
        out.flush();
        for (int i = 1; i <= pieces; i++) {
            Thread.sleep((long) (1000 * seconds / pieces));
            out.write(bytes(line(path, String.format("piece %06d", i))));
            out.flush();
        }
        order(key);
        out.write(last);
    }

    private static void serve(HttpExchange exchange) throws IOException, InterruptedException {
        String path = exchange.getRequestURI().getPath();
        Map<String, String> given = parameters(exchange);
        String key = given.getOrDefault("key", "");
        double seconds, pieces;
        try {
            seconds = Double.parseDouble(given.getOrDefault("s", "0"));
            pieces = Double.parseDouble(given.getOrDefault("n", "10"));
        } catch (NumberFormatException error) {
            seconds = pieces = -1;
        }
        if (!key.matches("[A-Za-z0-9._:-]{0,200}") || !(seconds >= 0 && seconds <= 3600)
                || !(pieces >= 1 && pieces <= 100000)) {
            answer(exchange, 400, "key, s or n makes no sense\n");
            return;
        }
        long taken = exchange.getRequestBody().transferTo(OutputStream.nullOutputStream());
        switch (path) {
            case "/", "/health" -> answer(exchange, 200, "ok\n");
            case "/fast", "/slow", "/poll", "/upload" -> {
                pay(key);
                if (path.equals("/slow") || path.equals("/poll")) {
                    Thread.sleep((long) (1000 * seconds));
                }
                order(key);
                answer(exchange, 200, path.equals("/upload") ? taken + "\n" : ("done " + key).strip() + "\n");
            }
            case "/stream", "/length", "/events" -> stream(exchange, path, key, seconds, (int) pieces);
            default -> answer(exchange, 404, "no such path\n");
        }
    }

    public static void main(String[] words) throws Exception {
        String path = System.getenv("LASTCALL_LEDGER");
        if (path != null && !path.isEmpty()) {
            ledger = new FileOutputStream(path, true);
        }
        String slow = System.getenv("LASTCALL_SLOW_BOOT");
        Thread.sleep(slow == null || slow.isEmpty() ? 0 : (long) (1000 * Double.parseDouble(slow)));
        InetAddress loopback = InetAddress.getByName("127.0.0.1");
        HttpServer server = HttpServer.create(new InetSocketAddress(loopback, Integer.parseInt(words[0])), 0);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", exchange -> {
            try (exchange) {
                serve(exchange);
            } catch (InterruptedException error) {
                Thread.currentThread().interrupt();
            }
        });
        if (words.length > 1 && words[1].equals("graceful")) {
            Runtime.getRuntime().addShutdownHook(new Thread(() -> server.stop(10)));
        }
        server.start();
        System.out.println("ready (pid: " + ProcessHandle.current().pid() + ")");
    }
}

package lastcall.current;

import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.core.SpringProperties;

/** The probe with what many applications have: JPA over a connection pool over a database. */
@SpringBootApplication(scanBasePackages = {"lastcall.current", "lastcall.probe"})
public class App {
    public static void main(String[] words) {
        // Spring Framework 7 ignores flush() otherwise: a stream would go out in one piece at its end.
        SpringProperties.setFlag("spring.http.response.flush.enabled");
        SpringApplication.run(App.class, words);
    }
}

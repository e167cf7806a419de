package lastcall.legacy;

import lastcall.probe.Ledger;
import lastcall.probe.Till;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;

/** The probe on a Spring Boot that knows no graceful shutdown; `--drain.limit=` gives it one. */
@SpringBootApplication(scanBasePackages = {"lastcall.legacy", "lastcall.probe"})
public class App {
    public static void main(String[] words) {
        SpringApplication.run(App.class, words);
    }

    @Bean
    Till till(Ledger ledger) {
        return new Till() {
            @Override
            public void pay(String key) {
                ledger.note(key, "begun");
                ledger.note(key, "paid");
            }

            @Override
            public void order(String key) {
                ledger.note(key, "ordered");
            }
        };
    }
}

package lastcall.probe;

import java.lang.management.ManagementFactory;
import org.springframework.boot.context.event.ApplicationReadyEvent;
import org.springframework.context.ApplicationListener;
import org.springframework.stereotype.Component;

/** Says `ready (pid: N)` once it serves. */
@Component
class Ready implements ApplicationListener<ApplicationReadyEvent> {
    @Override
    public void onApplicationEvent(ApplicationReadyEvent event) {
        // ProcessHandle is newer than the Java 8 that this is compiled for.
        String pid = ManagementFactory.getRuntimeMXBean().getName().split("@")[0];
        System.out.println("ready (pid: " + pid + ")");
    }
}

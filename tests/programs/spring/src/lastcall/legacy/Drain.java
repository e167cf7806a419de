package lastcall.legacy;

import java.time.Duration;
import java.util.concurrent.Executor;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import org.apache.catalina.connector.Connector;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.autoconfigure.condition.ConditionalOnProperty;
import org.springframework.boot.web.embedded.tomcat.TomcatConnectorCustomizer;
import org.springframework.context.ApplicationListener;
import org.springframework.context.event.ContextClosedEvent;
import org.springframework.stereotype.Component;

/**
 * A graceful shutdown for a server that has none: stop taking connections, then let Tomcat's
 * threads finish.
 *
 * <p>Source: the recipe of spring-projects/spring-boot#4657, in use before Spring Boot 2.3.
 */
@Component
@ConditionalOnProperty("drain.limit")
class Drain implements TomcatConnectorCustomizer, ApplicationListener<ContextClosedEvent> {
    private static final Logger log = LoggerFactory.getLogger(Drain.class);

    private final Duration limit;
    private volatile Connector connector;

    Drain(@Value("${drain.limit}") Duration limit) {
        this.limit = limit;
    }

    @Override
    public void customize(Connector connector) {
        this.connector = connector;
    }

    @Override
    public void onApplicationEvent(ContextClosedEvent event) {
        connector.pause();
        Executor executor = connector.getProtocolHandler().getExecutor();
        if (!(executor instanceof ThreadPoolExecutor)) {
            log.warn("Tomcat's executor cannot be drained: {}", executor);
            return;
        }
        ThreadPoolExecutor threads = (ThreadPoolExecutor) executor;
        log.info("Draining: {} active requests, limit {}", threads.getActiveCount(), limit);
        threads.shutdown();
        try {
            if (threads.awaitTermination(limit.toMillis(), TimeUnit.MILLISECONDS)) {
                log.info("Drained");
            } else {
                log.warn("Not drained within {}: {} requests are cut", limit, threads.getActiveCount());
            }
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
    }
}

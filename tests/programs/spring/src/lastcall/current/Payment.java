package lastcall.current;

import jakarta.persistence.Entity;
import jakarta.persistence.GeneratedValue;
import jakarta.persistence.Id;

/** What was taken for a request. */
@Entity
class Payment {
    @Id @GeneratedValue private Long id;
    private String request;

    protected Payment() {}

    Payment(String request) {
        this.request = request;
    }
}

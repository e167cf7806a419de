package lastcall.current;

import jakarta.persistence.Entity;
import jakarta.persistence.GeneratedValue;
import jakarta.persistence.Id;

/** The order that a request was for; ORDER is a word of SQL. */
@Entity
class Purchase {
    @Id @GeneratedValue private Long id;
    private String request;

    protected Purchase() {}

    Purchase(String request) {
        this.request = request;
    }
}

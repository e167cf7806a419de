package lastcall.current;

import jakarta.persistence.EntityManager;
import lastcall.probe.Ledger;
import lastcall.probe.Till;
import org.springframework.stereotype.Component;
import org.springframework.transaction.support.TransactionOperations;

/** Payment and order are two transactions; the ledger tells of each once it is committed. */
@Component
class DatabaseTill implements Till {
    private final EntityManager entities;
    private final TransactionOperations transactions;
    private final Ledger ledger;

    DatabaseTill(EntityManager entities, TransactionOperations transactions, Ledger ledger) {
        this.entities = entities;
        this.transactions = transactions;
        this.ledger = ledger;
    }

    @Override
    public void pay(String key) {
        ledger.note(key, "begun");
        save(new Payment(key));
        ledger.note(key, "paid");
    }

    @Override
    public void order(String key) {
        save(new Purchase(key));
        ledger.note(key, "ordered");
    }

    private void save(Object entity) {
        transactions.executeWithoutResult(status -> entities.persist(entity));
    }
}

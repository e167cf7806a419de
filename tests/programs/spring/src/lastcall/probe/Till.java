package lastcall.probe;

/** Work is a payment and an order. A stop between the two is the case that costs a customer money. */
public interface Till {
    void pay(String key);

    void order(String key);
}

package lastcall.probe;

import java.io.FileOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.stereotype.Component;

/** What was executed, in the file that LASTCALL_LEDGER names: a line `KEY STEP` for each deed. */
@Component
public class Ledger {
    private final FileOutputStream file;

    Ledger(@Value("${LASTCALL_LEDGER:}") String path) throws IOException {
        file = path.isEmpty() ? null : new FileOutputStream(path, true);
    }

    /** One write to a file opened with O_APPEND: the lines of several threads never mix. */
    public void note(String key, String step) {
        if (file == null || key.isEmpty()) {
            return;
        }
        try {
            file.write((key + " " + step + "\n").getBytes(StandardCharsets.UTF_8));
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}

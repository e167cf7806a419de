package lastcall.probe;

import java.io.IOException;
import org.springframework.http.HttpInputMessage;
import org.springframework.http.HttpOutputMessage;
import org.springframework.http.MediaType;
import org.springframework.http.converter.AbstractHttpMessageConverter;
import org.springframework.stereotype.Component;

/** Writes pieces in the request's own thread, unlike StreamingResponseBody. */
@Component
class PiecesWriter extends AbstractHttpMessageConverter<Pieces> {
    PiecesWriter() {
        super(MediaType.ALL);
    }

    @Override
    protected boolean supports(Class<?> type) {
        return type == Pieces.class;
    }

    @Override
    public boolean canRead(Class<?> type, MediaType mediaType) {
        return false;
    }

    @Override
    protected Pieces readInternal(Class<? extends Pieces> type, HttpInputMessage message) {
        throw new UnsupportedOperationException("pieces are only written");
    }

    @Override
    protected void writeInternal(Pieces pieces, HttpOutputMessage message) throws IOException {
        pieces.writeTo(message.getBody());
    }
}

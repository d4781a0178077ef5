import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;

/**
 * Calls an API of the iTwin Platform again and again. It reads the token for every call, because the file changes
 * before the token expires. With Java 17 or later: {@code java Client.java}.
 */
class Client {
    // without redirects, which would take the token to another server
    private static final HttpClient HTTP = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(10)).build();
    private static final Path FILE = Path.of(setting("ITWIN_ACCESS_TOKEN_FILE", "/var/run/secrets/itwin/access_token"));
    private static final URI API = URI.create(setting("ITWIN_URL", "https://api.bentley.com/itwins/"));

    private static String setting(String name, String otherwise) {
        return System.getenv().getOrDefault(name, otherwise);
    }

    private static String call() throws IOException, InterruptedException {
        var request = HttpRequest.newBuilder(API)
                .timeout(Duration.ofSeconds(30))
                .header("Accept", "application/vnd.bentley.itwin-platform.v1+json")
                .header("Authorization", "Bearer " + Files.readString(FILE))
                .build();
        var response = HTTP.send(request, BodyHandlers.ofString());
        if (response.statusCode() != 200) {
            throw new IOException("status " + response.statusCode());
        }
        return response.body();
    }

    public static void main(String[] arguments) throws InterruptedException {
        var seconds = Double.parseDouble(setting("INTERVAL_SECONDS", "60"));
        while (true) {
            try {
                call();
            } catch (IOException error) {
                System.err.println("The call failed: " + error);
            }
            Thread.sleep((long) (seconds * 1000));
        }
    }
}

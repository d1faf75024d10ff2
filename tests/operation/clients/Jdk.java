// java Jdk.java URL FILE: the JDK's HttpClient, whose users write multipart themselves.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

class Jdk {
    public static void main(String[] arguments) throws Exception {
        Path file = Path.of(arguments[1]);
        String boundary = "b0undary-of-jdk";
        // The name is written out: a JVM in the C locale cannot read it from its arguments.
        String head = "--" + boundary + "\r\nContent-Disposition: form-data; name=\"image\"; filename=\"\u56fe\u7247.png\""
                + "\r\nContent-Type: image/png\r\n\r\n";
        String tail = "\r\n--" + boundary + "\r\nContent-Disposition: form-data; name=\"question\"\r\n\r\n"
                + "what color is the circle?\r\n--" + boundary + "--\r\n";
        HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0] + "/vqa"))
                .header("Content-Type", "multipart/form-data; boundary=" + boundary)
                .POST(BodyPublishers.ofByteArrays(List.of(
                        head.getBytes(StandardCharsets.UTF_8), Files.readAllBytes(file), tail.getBytes(StandardCharsets.UTF_8))))
                .build();
        // It offers HTTP/2 by an upgrade unless told otherwise: that is to be ignored.
        var response = HttpClient.newHttpClient().send(request, BodyHandlers.ofString());
        System.out.println(response.statusCode() + " " + response.body());
    }
}

import com.yahoo.labs.samoa.instances.*;
import java.io.PrintWriter;
import java.lang.management.ManagementFactory;
import java.nio.file.*;
import java.util.*;
import moa.classifiers.AbstractClassifier;
import moa.classifiers.Classifier;
import moa.core.Utils;
import moa.options.ClassOption;

/**
 * Test, then train, over one stream with a learner of MOA: Moa LEARNER STREAM PREDICTIONS. Writes a predicted class a line
 * and prints the processor time of this thread, as MOA's own evaluation does: compiling and collecting are not counted.
 */
public class Moa {
    public static void main(String[] arguments) throws Exception {
        List<double[]> rows = new ArrayList<>();
        int classes = 2;
        for (String line : Files.readAllLines(Path.of(arguments[1]))) {
            double[] row = Arrays.stream(line.split(",")).mapToDouble(Double::parseDouble).toArray();
            classes = Math.max(classes, (int) row[row.length - 1] + 1);
            rows.add(row);
        }
        int width = rows.get(0).length;
        ArrayList<Attribute> attributes = new ArrayList<>();
        for (int place = 0; place < width - 1; place++) attributes.add(new Attribute("x" + place));
        ArrayList<String> names = new ArrayList<>();
        for (int name = 0; name < classes; name++) names.add(String.valueOf(name));
        attributes.add(new Attribute("y", names));
        Instances header = new Instances("stream", attributes, 0);
        header.setClassIndex(width - 1);
        List<Instance> instances = new ArrayList<>();
        for (double[] row : rows) {
            Instance instance = new DenseInstance(1.0, row);
            instance.setDataset(header);
            instances.add(instance);
        }
        Classifier learner = (Classifier) ClassOption.cliStringToObject(arguments[0], Classifier.class, null);
        ((AbstractClassifier) learner).prepareForUse();
        learner.setModelContext(new InstancesHeader(header));
        int[] predictions = new int[rows.size()];
        var thread = ManagementFactory.getThreadMXBean();
        long started = thread.getCurrentThreadCpuTime();
        for (int place = 0; place < predictions.length; place++) {
            Instance instance = instances.get(place);
            double[] votes = learner.getVotesForInstance(instance);
            predictions[place] = votes.length == 0 ? -1 : Utils.maxIndex(votes);
            learner.trainOnInstance(instance);
        }
        double taken = (thread.getCurrentThreadCpuTime() - started) / 1e9;
        try (PrintWriter out = new PrintWriter(arguments[2])) {
            for (int prediction : predictions) out.println(prediction);
        }
        System.out.println(taken);
    }
}
